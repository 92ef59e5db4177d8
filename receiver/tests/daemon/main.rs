//! The daemon as its users and its enemies meet it: command line, events, hostile connections, signals.

mod command_line;
mod common;
mod connections;
mod ending;
