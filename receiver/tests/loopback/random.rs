//! Programs that change their memory at random while it arrives: after every change, each byte is what it would
//! be had the program never moved.

use std::collections::BTreeMap;

use sys::test_child::Command;

use crate::world::{Source, World, addr, byte_of, range};

const PAGES: u64 = 3000;
const CHANGES: u32 = 150;
/// Where moved pages go, far from all others.
const ELSEWHERE: u64 = 100_000;
/// An offset that is never written to.
const UNTOUCHED: u64 = 77;

/// What a page holds.
#[derive(Clone, Copy, Default)]
struct Page {
    /// The page of the source that it was.
    origin: Option<u64>,
    /// What the program has written to its first byte.
    first: Option<u8>,
}

impl Page {
    fn byte(self, offset: u64) -> u64 {
        let arrived = self.origin.map_or(0, |page| byte_of(page, offset));
        u64::from(if offset == 0 { self.first.unwrap_or(arrived) } else { arrived })
    }
}

/// A program and what its memory must be.
struct Program {
    world: World,
    random: u64,
    /// Mappings by their first page: how many pages.
    mappings: BTreeMap<u64, u64>,
    pages: BTreeMap<u64, Page>,
    next_place: u64,
}

#[test]
fn a_program_that_changes_its_memory_at_random_keeps_every_byte() {
    if !crate::world::permitted() {
        return;
    }
    for seed in 1..=10 {
        let mut source = Source::new(range(0, PAGES));
        source.pages.insert(range(0, PAGES));
        source.eager = vec![range(seed, 3)];
        let mut program = Program::new(World::start(source), seed);
        program.world.await_resumed();
        for _ in 0..CHANGES {
            program.change();
        }
        let ends = program.world.join();
        assert_eq!(ends.destination, fault_handler::Outcome::Completed(None), "seed {seed}");
        program.check_all(seed);
    }
}

impl Program {
    fn new(world: World, seed: u64) -> Self {
        let page = |page| (page, Page { origin: Some(page), first: None });
        Self {
            world,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            mappings: BTreeMap::from([(0, PAGES)]),
            pages: (0..PAGES).map(page).collect(),
            next_place: ELSEWHERE,
        }
    }

    /// One random step of xorshift64*.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound.max(1)
    }

    /// Some pages of one mapping: the first one and how many.
    fn some_pages(&mut self) -> (u64, u64) {
        let index = usize::try_from(self.below(self.mappings.len() as u64)).expect("few mappings");
        let (&start, &len) = self.mappings.iter().nth(index).expect("below the number of mappings");
        let first = start + self.below(len);
        (first, 1 + self.below((start + len - first).min(40)))
    }

    fn change(&mut self) {
        let (first, count) = self.some_pages();
        match self.below(12) {
            0 => self.drop_content(first, count),
            1 => self.move_away(first, count),
            2 => self.unmap(first, count),
            3 => self.map_over(first, count),
            4 | 5 => self.store(first),
            6 => {
                let offset = UNTOUCHED * self.below(2);
                let loaded = self.world.ask(Command::ForkAndLoad(addr(first, offset)));
                assert_eq!(loaded, self.page(first).byte(offset), "page {first} in a child");
            }
            _ => self.check(first),
        }
    }

    fn page(&self, page: u64) -> Page {
        self.pages.get(&page).copied().expect("mapped")
    }

    fn check(&mut self, page: u64) {
        for offset in [0, UNTOUCHED] {
            let loaded = self.world.ask(Command::Load(addr(page, offset)));
            assert_eq!(loaded, self.page(page).byte(offset), "page {page} at {offset}");
        }
    }

    fn check_all(&mut self, seed: u64) {
        for (page, content) in self.pages.clone() {
            let loaded = self.world.ask(Command::Load(addr(page, UNTOUCHED)));
            assert_eq!(loaded, content.byte(UNTOUCHED), "page {page}, seed {seed}");
        }
    }

    fn store(&mut self, page: u64) {
        let byte = u8::try_from(self.below(256)).expect("below 256");
        assert_eq!(self.world.ask(Command::Store(addr(page, 0), byte)), 0);
        self.pages.insert(page, Page { first: Some(byte), ..self.page(page) });
    }

    fn drop_content(&mut self, first: u64, count: u64) {
        assert_eq!(self.world.ask(Command::Drop(range(first, count))), 0);
        self.pages.extend((first..first + count).map(|page| (page, Page::default())));
    }

    fn map_over(&mut self, first: u64, count: u64) {
        assert_eq!(self.world.ask(Command::Map(range(first, count))), addr(first, 0).0);
        self.cut(first, count);
        self.mappings.insert(first, count);
        self.pages.extend((first..first + count).map(|page| (page, Page::default())));
    }

    fn unmap(&mut self, first: u64, count: u64) {
        if self.mappings.len() > 1 || count < PAGES / 2 {
            assert_eq!(self.world.ask(Command::Unmap(range(first, count))), 0);
            self.cut(first, count);
            self.pages.retain(|page, _| !(first..first + count).contains(page));
        }
    }

    fn move_away(&mut self, first: u64, count: u64) {
        let to = self.next_place;
        self.next_place += count + 1;
        assert_eq!(self.world.ask(Command::Move(range(first, count), addr(to, 0))), addr(to, 0).0);
        self.cut(first, count);
        self.mappings.insert(to, count);
        for page in first..first + count {
            let content = self.pages.remove(&page).expect("mapped");
            self.pages.insert(to + page - first, content);
        }
    }

    /// Takes pages out of their mapping.
    fn cut(&mut self, first: u64, count: u64) {
        let (&start, &len) = self.mappings.range(..=first).next_back().expect("mapped");
        self.mappings.remove(&start);
        if start < first {
            self.mappings.insert(start, first - start);
        }
        if first + count < start + len {
            self.mappings.insert(first + count, start + len - first - count);
        }
    }
}
