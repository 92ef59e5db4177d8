//! Rules for one Rust file, by its tokens: comments and strings cannot fool them, and macros cannot hide from
//! them.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

use super::Finding;

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

/// Where unsafe code may be.
const UNSAFE_PLACES: [&str; 8] = [
    "crates/sys/",
    "sender-lib/src/ffi.rs",
    "sender-lib/src/ffi/",
    "sender-lib/body/src/ffi.rs",
    "sender-lib/body/src/ffi/",
    "sender-lib/seam/src/symbols.rs",
    "receiver/src/restorer/trampoline.rs",
    "receiver/src/restorer/trampoline/",
];

/// Written by others, or to others' measure.
const FOREIGN: [&str; 2] = ["vendor/", "fuzz/"];

/// Checks the file at `path`.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let mut rules = Rules { path, lines: &lines, findings: Vec::new() };
    if !text.starts_with("//!") {
        rules.find(1, "does not open with //! and what the file is for".to_owned());
    }
    if FOREIGN.iter().any(|foreign| path.starts_with(foreign)) {
        return rules.findings;
    }
    if lines.len() > FILE_LINES {
        rules.find(1, format!("has {} lines, {FILE_LINES} are the limit", lines.len()));
    }
    match text.parse::<TokenStream>() {
        Ok(tokens) => rules.walk(tokens, false),
        Err(error) => rules.find(error.span().start().line, "is not Rust".to_owned()),
    }
    rules.findings
}

struct Rules<'text> {
    path: &'text str,
    lines: &'text [&'text str],
    findings: Vec<Finding>,
}

impl Rules<'_> {
    fn find(&mut self, line: usize, text: String) {
        self.findings.push(Finding { path: self.path.to_owned(), line, text });
    }

    /// `implements`: these are the items of an `unsafe impl`, whose contract is the trait's.
    fn walk(&mut self, tokens: TokenStream, implements: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut unsafe_impl = false;
        for (index, token) in tokens.iter().enumerate() {
            let rest = tokens.get(index + 1..).unwrap_or_default();
            match token {
                TokenTree::Ident(ident) if ident == "fn" => self.check_function(ident, rest),
                TokenTree::Ident(ident) if ident == "unsafe" => {
                    let what = UnsafeUse::of(rest);
                    unsafe_impl |= what == UnsafeUse::Impl;
                    self.check_unsafe(ident, what, implements);
                }
                TokenTree::Group(group) => {
                    let braces = group.delimiter() == Delimiter::Brace;
                    self.walk(group.stream(), braces && unsafe_impl);
                    unsafe_impl &= !braces;
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    fn check_function(&mut self, keyword: &Ident, rest: &[TokenTree]) {
        let [TokenTree::Ident(name), ..] = rest else { return };
        let Some(body) = body(rest) else { return };
        let first = keyword.span().start().line;
        let lines = body.span_close().end().line - first + 1;
        if lines > FUNCTION_LINES {
            self.find(first, format!("{name} has {lines} lines, {FUNCTION_LINES} are the limit"));
        }
    }

    fn check_unsafe(&mut self, keyword: &Ident, what: UnsafeUse, implements: bool) {
        let line = keyword.span().start().line;
        let needs_words = match what {
            UnsafeUse::Block | UnsafeUse::Impl => true,
            UnsafeUse::Function => !implements,
            UnsafeUse::Attribute | UnsafeUse::FunctionType => false,
        };
        // A type does nothing: whoever calls such a function is in one of the places.
        let is_code = what != UnsafeUse::FunctionType;
        if is_code && !UNSAFE_PLACES.iter().any(|place| self.path.starts_with(place)) {
            self.find(line, "unsafe code has three places, this is none of them".to_owned());
        } else if needs_words && !self.says_why(line) {
            self.find(line, "unsafe without a SAFETY comment above it".to_owned());
        }
    }

    /// Whether the statement or item that `line` belongs to has a SAFETY comment, or a `# Safety` section.
    fn says_why(&self, line: usize) -> bool {
        let above = self.lines.iter().take(line).rev().enumerate();
        for (distance, text) in above {
            let (code, comment) = text.split_once("//").unwrap_or((text, ""));
            if comment.contains("SAFETY:") || comment.contains("# Safety") {
                return true;
            }
            let ends_another = code.trim_end().ends_with([';', '{', '}']) && !code.trim().starts_with("#[");
            if distance > 0 && (ends_another || text.trim().is_empty()) {
                return false;
            }
        }
        false
    }
}

/// The braces of a function; none for a declaration.
fn body(rest: &[TokenTree]) -> Option<&Group> {
    for token in rest {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ';' => return None,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return Some(group),
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => {}
        }
    }
    None
}

/// What the word `unsafe` stands before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UnsafeUse {
    /// A block of code, or of foreign declarations.
    Block,
    Impl,
    /// A function, or a trait: it asks something of its callers.
    Function,
    /// The type of a function pointer; calling it is what needs a block.
    FunctionType,
    /// `#[unsafe(no_mangle)]` and its kin, which say what is unsafe about them by their names.
    Attribute,
}

impl UnsafeUse {
    fn of(rest: &[TokenTree]) -> Self {
        let [first, rest @ ..] = rest else { return Self::Block };
        match (first, rest) {
            (TokenTree::Group(group), _) if group.delimiter() == Delimiter::Parenthesis => Self::Attribute,
            (TokenTree::Group(_), _) => Self::Block,
            (TokenTree::Ident(word), _) if word == "impl" => Self::Impl,
            (TokenTree::Ident(word), [TokenTree::Group(_), ..]) if word == "fn" => Self::FunctionType,
            (TokenTree::Ident(word), [TokenTree::Literal(_), rest @ ..]) if word == "extern" => {
                Self::of(rest)
            }
            (TokenTree::Ident(word), rest) if word == "extern" => Self::of(rest),
            _ => Self::Function,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        check(path, text).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_file_that_does_not_say_what_it_is_for_is_found() {
        assert_eq!(found("a.rs", "fn main() {}\n"), [1]);
        assert!(found("a.rs", "//! A test.\nfn main() {}\n").is_empty());
    }

    #[test]
    fn long_files_and_functions_are_found_and_declarations_are_not_functions() {
        assert_eq!(found("a.rs", &format!("//! A test.\n{}", "// x\n".repeat(600))), [1]);
        let long = format!("//! A test.\nfn long() {{\n{}}}\n", "    x();\n".repeat(69));
        assert_eq!(found("a.rs", &long), [2]);
        let fits = format!("//! A test.\nfn fits() {{\n{}}}\n", "    x();\n".repeat(68));
        assert!(found("a.rs", &fits).is_empty());
        let declared = format!("//! A test.\ntrait T {{ fn f();\n{} fn g() {{}} }}\n", "\n".repeat(99));
        assert!(found("a.rs", &declared).is_empty());
    }

    #[test]
    fn long_functions_inside_macros_are_found() {
        let text = format!("//! A test.\nwrap! {{ fn long() {{\n{}}} }}\n", "    x();\n".repeat(70));
        assert_eq!(found("a.rs", &text), [2]);
    }

    #[test]
    fn unsafe_outside_its_three_places_is_found_even_in_macros_and_never_in_comments() {
        let text = "//! unsafe\nfn f() { g!(unsafe { h() }) } // unsafe\nconst S: &str = \"unsafe\";\n";
        assert_eq!(found("receiver/src/restorer.rs", text), [2]);
        assert!(found("vendor/x/src/lib.rs", text).is_empty());
        let text = "//! A test.\ntype F = unsafe extern \"C\" fn(i32);\nunsafe fn f() {}\n";
        assert_eq!(found("receiver/src/restorer.rs", text), [3]);
    }

    #[test]
    fn unsafe_needs_its_own_safety_comment() {
        let text = "//! A test.
fn f() {
    // SAFETY: it is so.
    let a =
        unsafe { g() };
    let b = unsafe { g() };
}
/// # Safety
/// Be careful.
#[inline]
pub unsafe fn g() {}
unsafe impl Send for X {}
type T = unsafe extern \"C\" fn(i32);
unsafe extern \"C\" {}
#[unsafe(no_mangle)]
unsafe extern \"C\" fn h() {}

// SAFETY: it is so.
unsafe impl T for X {
    unsafe fn i() {}
}
";
        assert_eq!(found("crates/sys/src/a.rs", text), [6, 12, 14, 16]);
    }
}
