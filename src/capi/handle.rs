//! Embedders by number: what C holds is never followed as a pointer.
//!
//! A handle that was freed, freed twice or made up is told apart from one that is open without
//! looking at what it points to.  Its number is a place in a table, how often the place was used
//! before, and a mark; a place is not used again once its count is full.

use super::{Failure, Status};
use crate::Embedder;
use std::{
    ptr,
    sync::{Arc, PoisonError, RwLock},
};

/// An open model.
///
/// A handle is a number in the guise of a pointer: it is looked up and never followed, so that one
/// that was freed, freed twice or made up is JINABERT_STATUS_BAD_HANDLE, not a crash.  (Two handles
/// differ for as long as the process lives: until 2^32 have been opened in the same place, on 32
/// bits 2^12, after which the place is no longer used.)
///
/// Threads: a handle may be used by any number of threads at the same time.  Each call counts as a
/// user, so `jinabert_free` is safe while others are under way: they end as if nothing had
/// happened, and the last of them frees the model.
pub struct EmbedderHandle {
    _no_fields: (),
}

/// The lowest bits of every handle.  Odd, so that no handle is an address of anything aligned.
const MARK: usize = 0xb5;
const MARK_BITS: u32 = 8;
const PLACE_BITS: u32 = if usize::BITS == 64 { 24 } else { 12 };
const LAST_PLACE: usize = (1 << PLACE_BITS) - 1;
const LAST_TURN: usize = usize::MAX >> (MARK_BITS + PLACE_BITS);

static TABLE: RwLock<Table<Embedder>> = RwLock::new(Table { places: Vec::new(), free: Vec::new() });

/// Handles of things.
struct Table<T> {
    places: Vec<Place<T>>,
    /// Places that are empty and not worn out.
    free: Vec<usize>,
}

struct Place<T> {
    /// How often it has been used.
    turn: usize,
    held: Option<Arc<T>>,
}

impl<T> Table<T> {
    fn insert(&mut self, held: Arc<T>) -> Option<usize> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() > LAST_PLACE => return None,
            None => {
                self.places.push(Place { turn: 0, held: None });
                self.places.len() - 1
            }
        };
        let Place { turn, held: empty } = &mut self.places[place];
        *turn += 1;
        *empty = Some(held);
        Some((*turn << PLACE_BITS | place) << MARK_BITS | MARK)
    }

    /// Where the handle's place is, if it is open.
    fn find(&self, handle: usize) -> Result<usize, &'static str> {
        let turn = handle >> (MARK_BITS + PLACE_BITS);
        let place = handle >> MARK_BITS & LAST_PLACE;
        if handle == 0 {
            return Err("is null");
        }
        match self.places.get(place) {
            Some(found) if handle & !(usize::MAX << MARK_BITS) == MARK => match &found.held {
                Some(_) if found.turn == turn => Ok(place),
                _ if (1..=found.turn).contains(&turn) => Err("was freed"),
                _ => Err("is no handle"),
            },
            _ => Err("is no handle"),
        }
    }

    fn get(&self, handle: usize) -> Result<Arc<T>, &'static str> {
        let place = self.find(handle)?;
        Ok(self.places[place].held.clone().expect("found there"))
    }

    fn remove(&mut self, handle: usize) -> Result<Arc<T>, &'static str> {
        let place = self.find(handle)?;
        if self.places[place].turn < LAST_TURN {
            self.free.push(place);
        }
        Ok(self.places[place].held.take().expect("found there"))
    }

    fn open(&self) -> usize {
        self.places.iter().filter(|place| place.held.is_some()).count()
    }
}

/// A handle for an embedder.
pub fn insert(embedder: Embedder) -> Result<*mut EmbedderHandle, Failure> {
    let embedder = Arc::new(embedder);
    // If the table is full, the embedder is dropped when the lock is free again: it may call back.
    let place = {
        let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(Arc::clone(&embedder))
    };
    let full = || Failure::argument(format!("{} models are open already", LAST_PLACE + 1));
    place.map(ptr::without_provenance_mut).ok_or_else(full)
}

/// The embedder of a handle, which lives as long as what is returned.
pub fn get(handle: *const EmbedderHandle) -> Result<Arc<Embedder>, Failure> {
    let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
    table.get(handle.addr()).map_err(|what| bad(handle, what))
}

/// Takes a handle out of use.  Its embedder is dropped by whoever uses it last.
pub fn remove(handle: *const EmbedderHandle) -> Result<Arc<Embedder>, Failure> {
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    table.remove(handle.addr()).map_err(|what| bad(handle, what))
}

/// How many are open.
pub fn open() -> usize {
    TABLE.read().unwrap_or_else(PoisonError::into_inner).open()
}

fn bad(handle: *const EmbedderHandle, what: &str) -> Failure {
    Failure::new(Status::BadHandle, format!("`embedder` {:#x} {what}", handle.addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_told_apart() {
        let mut table = Table { places: Vec::new(), free: Vec::new() };
        let first = table.insert(Arc::new("a")).expect("room");
        let second = table.insert(Arc::new("b")).expect("room");
        assert_eq!((table.get(first), table.get(second)), (Ok(Arc::new("a")), Ok(Arc::new("b"))));
        assert_eq!(table.open(), 2);
        assert_eq!(table.remove(first), Ok(Arc::new("a")));
        assert_eq!((table.get(first), table.remove(first)), (Err("was freed"), Err("was freed")));
        let third = table.insert(Arc::new("c")).expect("room");
        assert_eq!(table.places.len(), 2, "the place is used again");
        assert_eq!((table.get(first), table.get(third)), (Err("was freed"), Ok(Arc::new("c"))));
        assert_eq!(table.open(), 2);
        assert_eq!(table.get(0), Err("is null"));
        let next_turn = 1 << (MARK_BITS + PLACE_BITS);
        let made_up = [1, MARK, third + 1, third + next_turn, third + (7 << MARK_BITS), usize::MAX];
        assert!(made_up.into_iter().all(|handle| table.get(handle) == Err("is no handle")));
    }

    #[test]
    fn places_wear_out() {
        let mut table = Table { places: Vec::new(), free: Vec::new() };
        let first = table.insert(Arc::new(1)).expect("room");
        table.remove(first).expect("open");
        table.places[0].turn = LAST_TURN - 1;
        let last = table.insert(Arc::new(2)).expect("room");
        assert_eq!((table.places.len(), table.get(last)), (1, Ok(Arc::new(2))));
        table.remove(last).expect("open");
        let next = table.insert(Arc::new(3)).expect("room");
        assert_eq!((table.places.len(), table.get(next)), (2, Ok(Arc::new(3))));
        assert_eq!(table.get(last), Err("was freed"));
    }

    /// Whoever has looked it up keeps it.
    #[test]
    fn what_is_in_use_outlives_its_handle() {
        let mut table = Table { places: Vec::new(), free: Vec::new() };
        let handle = table.insert(Arc::new("a")).expect("room");
        let used = table.get(handle).expect("open");
        drop(table.remove(handle));
        assert_eq!((*used, Arc::strong_count(&used)), ("a", 1));
    }
}
