//! Asking CRIU's page server for pages.
//!
//! CRIU's server walks through a pipe from its beginning for every request, so that a page costs nearly as much as a
//! mebibyte. So whole pieces are asked for, the next one while this one is used, and kept until every page was wanted.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use memory::{Addr, PAGE_SIZE, PageRange};

use crate::config::{MOST_PIECES, PAGE_SILENCE, PIECE_BYTES};
use crate::wire::{Command, Form, Record};

/// Pages of one process that have come.
#[derive(Debug)]
struct Piece {
    pages: PageRange,
    bytes: Vec<u8>,
    /// Pages that nobody has wanted yet.
    left: u64,
}

/// A page server that is asked for pages.
#[derive(Debug)]
pub struct Client<S = TcpStream> {
    stream: S,
    form: Form,
    /// By process and address.
    pieces: BTreeMap<(u32, Addr), Piece>,
    /// What was asked for and has not come.
    asked: Option<(u32, PageRange)>,
    /// The piece of which everything has been lent: it is needed until something else is wanted.
    used_up: Option<(u32, Addr)>,
    /// Room of a piece that is not needed any more.
    room: Vec<u8>,
}

impl Client {
    /// Connects to a server that speaks this form.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn connect(address: &str, port: u16, form: Form) -> io::Result<Self> {
        let stream = TcpStream::connect((address, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PAGE_SILENCE))?;
        Ok(Self::over(stream, form))
    }
}

impl<S: Read + Write> Client<S> {
    /// Talks to a server that speaks this form over `stream`.
    pub fn over(stream: S, form: Form) -> Self {
        Self { stream, form, pieces: BTreeMap::new(), asked: None, used_up: None, room: Vec::new() }
    }

    /// Has the first of the pages `at` of process `pid` here, to be [lent](Self::lend); `around` is the run of its lazy
    /// pages that they are in.
    ///
    /// # Errors
    /// The server is gone, or says something else than what it was asked.
    pub fn fetch(&mut self, pid: u32, at: PageRange, around: PageRange) -> io::Result<()> {
        self.let_go();
        if self.find(pid, at).is_some() {
            return Ok(());
        }
        self.receive()?;
        if self.find(pid, at).is_none() {
            let piece = piece_at(at.start(), around).ok_or_else(|| invalid("pages outside of their run"))?;
            let rest = PageRange::new(at.start(), piece.end()).unwrap_or(piece);
            // The server sends less where its own pieces end: then from there on.
            let is_cut = self.pieces.contains_key(&(pid, piece.start()));
            self.ask(pid, if is_cut { rest } else { piece })?;
            self.receive()?;
            if self.find(pid, at).is_none() {
                self.ask(pid, rest)?;
                self.receive()?;
            }
        }
        self.find(pid, at).ok_or_else(|| invalid("not the pages asked for"))?;
        self.ask_ahead(pid, at, around)
    }

    /// The bytes of the pages `at` of process `pid`, from the first one on, as far as one piece reaches. What has been lent
    /// once is let go when something else is fetched and nothing is left of its piece.
    #[must_use]
    pub fn lend(&mut self, pid: u32, at: PageRange) -> Option<&[u8]> {
        let key = self.find(pid, at)?;
        let piece = self.pieces.get_mut(&key)?;
        let pages = PageRange::new(at.start(), piece.pages.end())?.pages().min(at.pages());
        piece.left = piece.left.saturating_sub(pages);
        self.used_up = (piece.left == 0).then_some(key);
        let from = usize::try_from(at.start().0 - piece.pages.start().0).ok()?;
        let len = usize::try_from(pages * PAGE_SIZE).ok()?;
        piece.bytes.get(from..from + len)
    }

    /// Says that everything has come: the source of the pages ends its tree.
    ///
    /// # Errors
    /// The server is gone, or what was asked for last is something else.
    pub fn close(mut self) -> io::Result<()> {
        self.receive()?;
        let record = Record { command: Command::Close, flags: 0, pages: 0, address: 0, owner: 0 };
        self.stream.write_all(&record.to_bytes(self.form))?;
        self.stream.read_exact(&mut [0; 4])
    }

    /// Has the source of the pages take its tree back: CRIU does so at a word that it does not know.
    pub fn give_back(mut self) {
        // Whoever is gone takes nothing back.
        let _ = self.stream.write_all(&[0xff; 32]);
        let _ = self.stream.read(&mut [0; 1]);
    }

    /// The piece that holds the first of the pages `at`.
    fn find(&self, pid: u32, at: PageRange) -> Option<(u32, Addr)> {
        let (key, piece) = self.pieces.range((pid, Addr(0))..=(pid, at.start())).next_back()?;
        piece.pages.contains(at.start()).then_some(*key)
    }

    /// Nobody looks at what was lent any more.
    fn let_go(&mut self) {
        let used_up = self.used_up.take().and_then(|key| self.pieces.remove(&key));
        self.room = used_up.map_or_else(|| std::mem::take(&mut self.room), |piece| piece.bytes);
    }

    /// Asks for the piece behind `at`, unless it is here.
    fn ask_ahead(&mut self, pid: u32, at: PageRange, around: PageRange) -> io::Result<()> {
        let next = piece_at(at.start(), around).and_then(|piece| piece_at(piece.end(), around));
        match next.filter(|next| !self.pieces.contains_key(&(pid, next.start()))) {
            Some(next) if self.asked.is_none() => self.ask(pid, next),
            _ => Ok(()),
        }
    }

    fn ask(&mut self, pid: u32, piece: PageRange) -> io::Result<()> {
        let (pages, address) = (piece.pages(), piece.start().0);
        let record = Record { command: Command::Get, flags: 0, pages, address, owner: pid.into() };
        self.stream.write_all(&record.to_bytes(self.form))?;
        self.asked = Some((pid, piece));
        Ok(())
    }

    /// Takes in what was asked for; the server may send less.
    fn receive(&mut self) -> io::Result<()> {
        let Some((pid, piece)) = self.asked.take() else { return Ok(()) };
        let answer = Record::read(&mut self.stream, self.form)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let fits = answer.command == Command::AddWithFlags && answer.address == piece.start().0;
        let pages = answer.range().filter(|pages| fits && !pages.is_empty() && piece.covers(*pages));
        let pages = pages.ok_or_else(|| invalid("not the pages asked for"))?;
        let mut bytes = std::mem::take(&mut self.room);
        bytes.resize(usize::try_from(pages.len()).map_err(io::Error::other)?, 0);
        self.stream.read_exact(&mut bytes)?;
        if self.pieces.len() >= MOST_PIECES {
            self.pieces.pop_first();
        }
        self.pieces.insert((pid, pages.start()), Piece { pages, bytes, left: pages.pages() });
        Ok(())
    }
}

/// The piece of `around` that begins at `start` or before and holds it.
fn piece_at(start: Addr, around: PageRange) -> Option<PageRange> {
    let aligned = start.0 - start.0 % PIECE_BYTES;
    let first = Addr(aligned).max(around.start());
    let end = Addr(aligned.saturating_add(PIECE_BYTES)).min(around.end());
    PageRange::new(first, end).filter(|piece| piece.contains(start))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_aligned_and_end_with_their_run() {
        let around = PageRange::new(Addr(0x0f_f000), Addr(0x21_0000)).expect("a run");
        let piece = |start| piece_at(Addr(start), around).map(|piece| (piece.start().0, piece.end().0));
        assert_eq!(piece(0x0f_f000), Some((0x0f_f000, 0x10_0000)));
        assert_eq!(piece(0x18_0000), Some((0x10_0000, 0x20_0000)));
        assert_eq!(piece(0x20_f000), Some((0x20_0000, 0x21_0000)));
        assert_eq!(piece(0x21_0000), None);
    }
}
