// Stands for a style sheet or an icon in tests; JupyterLab refuses icons that are empty.
module.exports = '<svg xmlns="http://www.w3.org/2000/svg"></svg>';
