//! How large the programs are that are measured.

use super::parts::Part;

/// Sizes in MiB.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    /// Of the program that does nothing.
    pub(super) idle: Vec<u64>,
    /// Of the one that touches its memory in random order.
    pub(super) reader: Vec<u64>,
    /// Of the one that writes.
    pub(super) writer: Vec<u64>,
    /// Of the programs whose memory is served between CRIU's dump and CRIU's restore.
    pub(super) instances: u64,
    /// Of memory that passes through a floor, and of the moves that are compared with it.
    pub(super) floor: u64,
    /// Of the program of which single faults are measured.
    pub(super) faults: u64,
    /// Of the program that moves over a fast link, and over a slow one.
    pub(super) links: [u64; 2],
    /// The most that fits here twice, if that is more than the largest idle program.
    pub(super) most: Option<u64>,
    /// The writer of which a promise speaks.
    pub(super) promised_writer: u64,
}

/// What the memory promise speaks of.
pub(super) const MOST: u64 = 12 << 10;

impl Sizes {
    /// The sizes for a machine where a process of `room_mib` fits twice.
    pub(super) fn new(quick: bool, room_mib: u64) -> Self {
        let fit = |sizes: &[u64]| sizes.iter().copied().filter(|mib| *mib <= room_mib).collect::<Vec<_>>();
        let idle = fit(if quick { &[1, 512] } else { &[1, 64, 1024, 4096] });
        let most = room_mib.min(MOST) >> 10 << 10;
        let is_more = !quick && idle.last().is_some_and(|largest| most > *largest);
        Self {
            idle,
            reader: fit(if quick { &[1, 128] } else { &[1, 64, 1024, 4096] }),
            writer: fit(if quick { &[128] } else { &[64, 256, 1024] }),
            instances: if quick { 128 } else { 1024 },
            floor: if quick { 128 } else { 1024 },
            faults: if quick { 16 } else { 64 },
            links: if quick { [128, 16] } else { [512, 512] },
            most: is_more.then_some(most),
            promised_writer: if quick { 128 } else { 256 },
        }
    }

    /// About how much memory the moves of `part` take at once, in MiB.
    pub(super) fn memory_of(&self, part: Part) -> u64 {
        /// The program here and there, and what CRIU has of it.
        const COPIES: u64 = 3;
        let largest = |sizes: &[u64]| sizes.iter().copied().max().unwrap_or(0);
        COPIES
            * match part {
                Part::Floors => self.floor,
                Part::Idle | Part::Footprint => largest(&self.idle),
                Part::Reader => largest(&self.reader),
                Part::Instances => self.instances,
                Part::Writer => largest(&self.writer),
                Part::Faults => self.faults,
                Part::Scaling => self.most.unwrap_or(0),
                Part::Links => largest(&self.links),
                Part::Throughput => self.promised_writer,
            }
    }

    /// The sleeping program of whose arrival a promise speaks: the one that is nearest to a GiB.
    pub(super) fn promised_asleep(&self) -> Option<u64> {
        self.idle.iter().copied().filter(|mib| *mib <= 1024).max()
    }

    /// The smallest and the largest idle program.
    pub(super) fn ends(&self) -> Option<[u64; 2]> {
        Some([*self.idle.first()?, *self.idle.last()?])
    }

    /// The largest reader that CRIU is made to move as well: it needs forty seconds for a GiB.
    pub(super) fn promised_reader(&self) -> u64 {
        const MOST_FOR_PEERS: u64 = 1024;
        self.reader.iter().copied().filter(|mib| *mib <= MOST_FOR_PEERS).max().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fits_twice_is_measured() {
        let sizes = Sizes::new(false, 11_000);
        assert_eq!((sizes.ends(), sizes.most), (Some([1, 4096]), Some(10 << 10)));
        let small = Sizes::new(false, 2000);
        assert_eq!((small.ends(), small.most, small.promised_reader()), (Some([1, 1024]), None, 1024));
        let large = Sizes::new(false, 100_000);
        assert_eq!((large.most, large.promised_reader()), (Some(MOST), 1024));
        assert_eq!([Part::Idle, Part::Scaling].map(|part| large.memory_of(part)), [12 << 10, 36 << 10]);
    }
}
