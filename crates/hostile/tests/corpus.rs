//! Everything that fuzzing found worth keeping is read again.

use std::fs;
use std::path::Path;

use hostile::TARGETS;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");

#[test]
fn every_target_reads_its_corpus() {
    for (name, target) in TARGETS {
        let mut files = 0;
        for entry in fs::read_dir(Path::new(CORPUS).join(name)).expect("every target has a corpus") {
            let path = entry.expect("the directory can be read").path();
            target(&fs::read(&path).expect("a file of the corpus can be read"));
            files += 1;
        }
        assert!(files > 0, "the corpus of {name} is empty");
    }
}

#[test]
fn every_corpus_and_every_fuzz_target_has_a_target() {
    let names = |path: &Path| -> Vec<String> {
        let entries = fs::read_dir(path).expect("it is there");
        let name =
            |entry: fs::DirEntry| entry.path().file_stem().map(|name| name.to_string_lossy().into_owned());
        let mut names: Vec<String> = entries.filter_map(|entry| name(entry.ok()?)).collect();
        names.sort();
        names
    };
    let mut known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(names(Path::new(CORPUS)), known);
    assert_eq!(names(&Path::new(CORPUS).join("../fuzz_targets")), known);
}
