//! The committed corpus through every target.

use std::path::Path;

use takhin_fuzz_targets::TARGETS;

#[test]
fn corpus_breaks_no_promise() {
    // Cargo runs tests in the directory of their crate.
    let corpus = Path::new("../corpus");
    for (name, target) in TARGETS {
        let folder = corpus.join(name);
        let mut inputs = 0;
        for file in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = file.unwrap().path();
            println!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 3, "{name}: {inputs} inputs replay next to nothing");
    }
}
