//! Texts for people, put together piece by piece.
//!
//! `core::fmt` would do the same by way of a machinery for width, precision and dispatch that is a twentieth of the
//! parasite. What the parasite says is a [`Piece`]; on the other side `Display` is free to use it.

use alloc::string::String;

use memory::Addr;

/// Takes the pieces of a text in their order.
pub trait Text {
    /// Appends `piece`.
    fn push_text(&mut self, piece: &str);
}

impl Text for String {
    fn push_text(&mut self, piece: &str) {
        self.push_str(piece);
    }
}

/// What has a wording.
pub trait Piece {
    /// Appends the wording.
    fn put_into(&self, text: &mut impl Text);

    /// The wording alone.
    fn in_words(&self) -> String {
        let mut text = String::new();
        self.put_into(&mut text);
        text
    }
}

impl<P: Piece + ?Sized> Piece for &P {
    fn put_into(&self, text: &mut impl Text) {
        (**self).put_into(text);
    }
}

impl Piece for str {
    fn put_into(&self, text: &mut impl Text) {
        text.push_text(self);
    }
}

impl Piece for String {
    fn put_into(&self, text: &mut impl Text) {
        text.push_text(self);
    }
}

/// Decimal.
macro_rules! numbers {
    ($($type:ty),*) => {
        $(impl Piece for $type {
            fn put_into(&self, text: &mut impl Text) {
                number(*self as u64, 10, text);
            }
        })*
    };
}

numbers!(u16, u32, u64, usize);

impl Piece for Addr {
    fn put_into(&self, text: &mut impl Text) {
        text.push_text("0x");
        number(self.0, 16, text);
    }
}

/// Appends `number` in digits of base `base`, 16 at most.
fn number(number: u64, base: u64, text: &mut impl Text) {
    const DIGITS: &str = "0123456789abcdef";
    if number >= base {
        self::number(number / base, base, text);
    }
    let digit = usize::try_from(number % base).unwrap_or(0);
    text.push_text(DIGITS.get(digit..=digit).unwrap_or_default());
}

/// Appends pieces to a [`Text`], one behind the other.
#[macro_export]
macro_rules! put {
    ($text:expr, $($piece:expr),* $(,)?) => {{ $($crate::Piece::put_into(&$piece, $text);)* }};
}

/// The pieces, one behind the other, as a `String`.
#[macro_export]
macro_rules! text {
    ($($piece:expr),* $(,)?) => {{
        let mut text = alloc::string::String::new();
        $crate::put!(&mut text, $($piece),*);
        text
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_one_another() {
        let name = String::from("maps");
        assert_eq!(text!["line ", 7_u32, " of ", name, " at ", Addr(0x7f00)], "line 7 of maps at 0x7f00");
    }

    #[test]
    fn numbers_are_written_in_full() {
        for value in [0, 9, 10, 4_294_967_295, u64::MAX] {
            assert_eq!(value.in_words(), alloc::format!("{value}"));
            assert_eq!(Addr(value).in_words(), alloc::format!("{value:#x}"));
        }
    }
}
