//! What to ask for together with a page for which a thread waits.

use memory::{Addr, PAGE_SIZE, PageRange, PageSet};
use protocol::MAX_PAGES_PER_FRAME;

use super::space::Space;
use crate::Config;

/// How many pages directly behind `page` are worth asking for in the same frame: wanted, not on their way, and behind
/// it at the destination too, so that what is fetched is what a program that walks on will touch.
pub(super) fn pages_behind(
    config: &Config,
    space: &Space,
    in_flight: &PageSet,
    (current, page): (PageRange, PageRange),
) -> u64 {
    let most = config.prefetch_pages.min(MAX_PAGES_PER_FRAME - 1);
    let extent_end = space.extent_at(current.start()).map_or(page.end(), |(_, source)| source.end());
    let mut end = page.end();
    let mut count = 0;
    while count < most && end < extent_end && space.is_wanted(end) && !in_flight.contains(end) {
        end = Addr(end.0 + PAGE_SIZE);
        count += 1;
    }
    count
}
