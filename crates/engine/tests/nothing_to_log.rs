//! Invariant 9, as far as the engine goes: what is logged of it cannot contain a page's bytes, because nothing that goes
//! in or comes out has room for any.

#[test]
fn no_input_action_or_failure_has_a_field_for_bytes() {
    let sources = [
        include_str!("../src/source/input.rs"),
        include_str!("../src/source/action.rs"),
        include_str!("../src/destination/input.rs"),
        include_str!("../src/destination/action.rs"),
        include_str!("../src/failure.rs"),
        include_str!("../src/report.rs"),
    ];
    for source in sources {
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            assert!(!line.contains("u8") && !line.contains("Bytes"), "a field for bytes: {line}");
        }
    }
}
