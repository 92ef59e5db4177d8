//! What a store takes from a source of epochs, and what it takes back from itself.

use criu_bridge::instance::Instance;
use criu_bridge::shadow::epoch::{Content, PageSource, Run};
use criu_bridge::shadow::index::{Index, Slots};
use criu_bridge::shadow::sizes;

/// Pages of the epoch that is there: data, zeros, data.
const BEFORE: [(u64, PageSource); 3] =
    [(5, PageSource::Value), (3, PageSource::Zero), (4, PageSource::Value)];

/// The first byte says what the others are: an epoch, which is refused or has each of its pages in one place that is its
/// own, or where the epoch before has it; an index; or the image that lists files.
pub fn shadow_epochs(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 3 {
        0 => epoch(bytes),
        1 => index(bytes),
        _ => {
            let forgotten = sizes::forget(bytes);
            assert!(forgotten.is_none_or(|image| image.len() <= bytes.len()), "it has got longer");
        }
    }
}

fn before() -> Index {
    let runs = BEFORE.map(|(pages, source)| Run { pages, source }).to_vec();
    let content = Content { runs, ..Content::default() };
    let slots = Slots::free_of(&[], 9).expect("an empty store");
    Index::build(&content, &Index::default(), &slots).expect("three runs")
}

fn epoch(bytes: &[u8]) {
    let Ok(mut instance) = protocol::decode::<Instance>(bytes) else { return };
    let Some(epoch) = instance.epoch.take() else { return };
    let (Some(content), Some(sequence)) = (epoch.content, instance.sequence()) else { return };
    let before = before();
    let Some(pages) = content.count(sequence.pages(), before.pages()) else { return };
    assert_eq!(pages.all(), sequence.pages());
    let kept = [before];
    let Some(slots) = Slots::free_of(&kept, pages.by_value) else { return };
    let [before] = kept;
    let Some(index) = Index::build(&content, &before, &slots) else { return };
    assert_eq!(index.pages(), pages.all());
    let mut at = 0;
    for Run { pages, source } in content.runs {
        let (slot, _) = index.find(at).expect("a page of it");
        match source {
            PageSource::Zero => assert_eq!(slot, None),
            PageSource::Value => assert!(slot.is_some_and(|slot| slot >= 9), "it lies where another one is"),
            PageSource::Reference(page) => {
                assert_eq!(slot, before.find(page).expect("a page of the one before").0);
            }
        }
        at += pages;
    }
    assert_eq!(index.find(at), None);
}

fn index(bytes: &[u8]) {
    let Ok(index) = Index::from_bytes(bytes) else { return };
    let last = index.pages().checked_sub(1);
    assert!(last.is_none_or(|last| index.find(last).is_some()));
    assert_eq!(index.find(index.pages()), None);
    assert_eq!(Index::from_bytes(&index.to_bytes()).expect("what was written"), index);
}
