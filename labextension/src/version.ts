/** The version of this extension, which is nbllm's (a test holds the two together). */
export const VERSION = '0.1.0';
