//! The progress bar of the terminal.
