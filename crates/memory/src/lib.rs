//! The words of an address space: addresses, pages, ranges, mappings, and sets of pages.
//!
//! No I/O, no kernel, no wire: every other crate speaks with these types. `no_std + alloc`, because the
//! parasite uses them too.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod address;
mod address_map;
mod page_set;
mod range_set;
mod sorted_map;
mod vma;

pub use address::{Addr, PAGE_SHIFT, PAGE_SIZE, PageRange, USER_END};
pub use address_map::AddressMap;
pub use page_set::PageSet;
pub use range_set::RangeSet;
pub use vma::{Backing, Protection, Sharing, Vma, VmaFlags, VmaName};
