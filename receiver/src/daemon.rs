//! The daemon: listens, greets, groups, starts sessions and passes on what they tell.
