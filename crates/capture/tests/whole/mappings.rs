//! Mappings. What a test cannot map without unsafe code (shared memory, files) is moved by the workload `mappings` of
//! `target`.

use memmap2::{Advice, MmapMut};
use memory::{Addr, Backing, PAGE_SIZE, PageRange, Sharing, Vma};
use protocol::{FileProof, FileVerdict, Manifest, Piece};

use crate::{alone, around, look, running};
use capture::Surroundings;

fn map(pages: u64) -> (MmapMut, PageRange) {
    let mut map = MmapMut::map_anon(usize::try_from(pages * PAGE_SIZE).expect("64 bit")).expect("memory");
    map[0] = 1;
    let range = PageRange::from_pages(Addr(map.as_ptr().addr() as u64), pages).expect("user memory");
    (map, range)
}

fn vma_at(manifest: &Manifest, addr: Addr) -> Option<Vma> {
    manifest.vmas.iter().find(|vma| vma.range.contains(addr)).cloned()
}

#[test]
fn advice_is_kept_and_taken_over_when_the_process_stops() {
    alone("mappings::advice_is_kept_and_taken_over_when_the_process_stops", || {
        let (map, range) = map(16);
        map.advise(Advice::DontFork).expect("anonymous memory");
        let before = running();
        let vma = vma_at(&before, range.start()).expect("mapped");
        assert!(vma.flags.dont_fork);
        assert_eq!((vma.backing, vma.sharing), (Backing::Anonymous, Sharing::Private));
        let verdicts = vec![FileVerdict::Same; before.files.len()];
        let stopped = look(&around(), |pagemap, around| {
            let verdicts = capture::Verdicts { files: &verdicts, same_kernel: false, look: None };
            capture::stopped(pagemap, around, before.threads.clone(), &before, verdicts)
        });
        let manifest = stopped.map_err(|refusal| refusal.in_words()).expect("nothing new").manifest;
        assert!(vma_at(&manifest, range.start()).expect("mapped").flags.dont_fork);
        assert!(manifest.lazy.iter().any(|lazy| lazy.covers(range)));
    });
}

#[test]
fn a_new_mapping_has_its_own_flags() {
    alone("mappings::a_new_mapping_has_its_own_flags", || {
        let before = running();
        // Too large for a place where the running process had something else.
        let (map, range) = map(1 << 16);
        map.advise(Advice::DontFork).expect("anonymous memory");
        let verdicts = vec![FileVerdict::Same; before.files.len()];
        let stopped = look(&around(), |pagemap, around| {
            let verdicts = capture::Verdicts { files: &verdicts, same_kernel: false, look: None };
            capture::stopped(pagemap, around, before.threads.clone(), &before, verdicts)
        });
        let manifest = stopped.map_err(|refusal| refusal.in_words()).expect("nothing special").manifest;
        assert!(vma_at(&manifest, range.start()).expect("mapped").flags.dont_fork);
    });
}

#[test]
fn the_parasites_own_memory_is_left_out() {
    alone("mappings::the_parasites_own_memory_is_left_out", || {
        let (_keep, range) = map(16);
        let (inner, _) = range.split_at_pages(4);
        let (_, inner) = inner.split_at_pages(2);
        let own = Surroundings { room: u64::MAX, ranges: &[inner], ..around() };
        let captured = look(&own, capture::running).map_err(|refusal| refusal.in_words());
        let manifest = captured.expect("an ordinary process").manifest;
        assert_eq!(vma_at(&manifest, inner.start()), None);
        assert!(vma_at(&manifest, range.start()).is_some_and(|vma| vma.range.end() == inner.start()));
        assert!(vma_at(&manifest, inner.end()).is_some_and(|vma| vma.range.start() == inner.end()));
    });
}

#[test]
fn a_mapped_file_is_proven_and_its_pages_travel_without_a_verdict() {
    alone("mappings::a_mapped_file_is_proven_and_its_pages_travel_without_a_verdict", || {
        let before = running();
        let text = before.vmas.iter().find(|vma| vma.protection.execute).expect("this program");
        let Backing::File { file, .. } = text.backing else { panic!("code comes from a file") };
        assert!(matches!(before.files[file as usize].proof, FileProof::BuildId(_) | FileProof::Content(_)));
        let lazy_text = |verdict| {
            let verdicts = vec![verdict; before.files.len()];
            let stopped = look(&around(), |pagemap, around| {
                let verdicts = capture::Verdicts { files: &verdicts, same_kernel: false, look: None };
                capture::stopped(pagemap, around, before.threads.clone(), &before, verdicts)
            });
            let manifest = stopped.map_err(|refusal| refusal.in_words()).expect("no shared file").manifest;
            assert_eq!(manifest.files[..before.files.len()], before.files, "indices stay");
            manifest.lazy.iter().any(|lazy| lazy.covers(text.range))
        };
        assert!(!lazy_text(FileVerdict::Same));
        assert!(lazy_text(FileVerdict::Travels));
    });
}

#[test]
fn a_shared_file_that_differs_is_refused() {
    let mut manifest = protocol::sample::manifest();
    let range = PageRange::from_pages(Addr(0x1000), 1).expect("user memory");
    manifest.vmas = vec![Vma {
        range,
        protection: memory::Protection::default(),
        sharing: Sharing::Shared,
        flags: memory::VmaFlags::default(),
        name: memory::VmaName::Plain,
        backing: Backing::File { file: 0, offset: 0 },
    }];
    assert!(capture::accept(&manifest, &[FileVerdict::Same]).is_ok());
    assert!(capture::accept(&manifest, &[]).is_ok(), "the destination looks at it itself");
    let refusal = capture::accept(&manifest, &[FileVerdict::Travels]).expect_err("refused").in_words();
    assert!(refusal.contains("0x1000"), "{refusal}");
}
