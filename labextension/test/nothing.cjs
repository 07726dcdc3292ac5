// Stands for a style sheet or an icon in tests.
module.exports = '';
