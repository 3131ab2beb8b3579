//! Table of embedders: a handle in C is a number and never dereferenced.
//!
//! A handle that was freed, freed twice or invented is distinguished from an open one without
//! following it.  Its number consists of a slot in the table, a use count of the slot, and a mark;
//! a slot is not reused once its count is exhausted.

use super::{CallError, Status};
use jinabert::Embedder;
use std::{
    ptr,
    sync::{Arc, PoisonError, RwLock},
};

/// Handle of an open model.
///
/// A handle is a table index disguised as a pointer.  It is looked up and never dereferenced: a
/// handle that was freed, freed twice or invented gives JINABERT_STATUS_BAD_HANDLE, not a crash.
/// (Handles are never reused in a process: a table slot is retired after 2^32 models, on 32-bit
/// systems 2^12.)
///
/// Threads: a handle may be used by any number of threads concurrently.  Each call holds a
/// reference, so `jinabert_free` is safe during other calls: they complete normally, and the last
/// of them frees the model.
pub struct EmbedderHandle {
    _no_fields: (),
}

/// Lowest bits of every handle.  Odd, so that no handle is an aligned address.
const MARK: usize = 0xb5;
const MARK_BITS: u32 = 8;
const SLOT_BITS: u32 = if usize::BITS == 64 { 24 } else { 12 };
const LAST_SLOT: usize = (1 << SLOT_BITS) - 1;
const LAST_USE: usize = usize::MAX >> (MARK_BITS + SLOT_BITS);

static TABLE: RwLock<Table<Embedder>> = RwLock::new(Table { slots: Vec::new(), free: Vec::new() });

/// Table of handles.
struct Table<T> {
    slots: Vec<Slot<T>>,
    /// Slots that are empty and may be reused.
    free: Vec<usize>,
}

struct Slot<T> {
    /// Number of uses of this slot.
    uses: usize,
    value: Option<Arc<T>>,
}

impl<T> Table<T> {
    fn insert(&mut self, value: Arc<T>) -> Option<usize> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() > LAST_SLOT => return None,
            None => {
                self.slots.push(Slot { uses: 0, value: None });
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[index];
        slot.uses += 1;
        slot.value = Some(value);
        Some((slot.uses << SLOT_BITS | index) << MARK_BITS | MARK)
    }

    /// Slot of an open handle.
    fn find(&self, handle: usize) -> Result<usize, &'static str> {
        if handle == 0 {
            return Err("is null");
        }
        let uses = handle >> (MARK_BITS + SLOT_BITS);
        let index = handle >> MARK_BITS & LAST_SLOT;
        match self.slots.get(index) {
            Some(slot) if handle & !(usize::MAX << MARK_BITS) == MARK => match &slot.value {
                Some(_) if slot.uses == uses => Ok(index),
                _ if (1..=slot.uses).contains(&uses) => Err("was freed"),
                _ => Err("is no handle"),
            },
            _ => Err("is no handle"),
        }
    }

    fn get(&self, handle: usize) -> Result<Arc<T>, &'static str> {
        let index = self.find(handle)?;
        Ok(self.slots[index].value.clone().expect("found there"))
    }

    fn remove(&mut self, handle: usize) -> Result<Arc<T>, &'static str> {
        let index = self.find(handle)?;
        if self.slots[index].uses < LAST_USE {
            self.free.push(index);
        }
        Ok(self.slots[index].value.take().expect("found there"))
    }

    fn open(&self) -> usize {
        self.slots.iter().filter(|slot| slot.value.is_some()).count()
    }
}

/// Creates a handle for an embedder.
pub fn insert(embedder: Embedder) -> Result<*mut EmbedderHandle, CallError> {
    let embedder = Arc::new(embedder);
    // If the table is full, the embedder is dropped when the lock is free again: it may call back.
    let handle = {
        let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(Arc::clone(&embedder))
    };
    handle
        .map(ptr::without_provenance_mut)
        .ok_or_else(|| CallError::argument(format!("{} models are open already", LAST_SLOT + 1)))
}

/// Embedder of a handle; it lives as long as the returned reference.
pub fn get(handle: *const EmbedderHandle) -> Result<Arc<Embedder>, CallError> {
    let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
    table.get(handle.addr()).map_err(|what| bad(handle, what))
}

/// Invalidates a handle.  Its embedder is dropped by its last user.
pub fn remove(handle: *const EmbedderHandle) -> Result<Arc<Embedder>, CallError> {
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    table.remove(handle.addr()).map_err(|what| bad(handle, what))
}

/// Number of open handles.
pub fn open() -> usize {
    TABLE.read().unwrap_or_else(PoisonError::into_inner).open()
}

fn bad(handle: *const EmbedderHandle, what: &str) -> CallError {
    CallError::new(Status::BadHandle, format!("`embedder` {:#x} {what}", handle.addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_freed_and_invented_handles_differ() {
        let mut table = Table { slots: Vec::new(), free: Vec::new() };
        let first = table.insert(Arc::new("a")).expect("room");
        let second = table.insert(Arc::new("b")).expect("room");
        assert_eq!((table.get(first), table.get(second)), (Ok(Arc::new("a")), Ok(Arc::new("b"))));
        assert_eq!(table.open(), 2);
        assert_eq!(table.remove(first), Ok(Arc::new("a")));
        assert_eq!((table.get(first), table.remove(first)), (Err("was freed"), Err("was freed")));
        let third = table.insert(Arc::new("c")).expect("room");
        assert_eq!(table.slots.len(), 2, "the slot is used again");
        assert_eq!((table.get(first), table.get(third)), (Err("was freed"), Ok(Arc::new("c"))));
        assert_eq!(table.open(), 2);
        assert_eq!(table.get(0), Err("is null"));
        let next_use = 1 << (MARK_BITS + SLOT_BITS);
        let made_up = [1, MARK, third + 1, third + next_use, third + (7 << MARK_BITS), usize::MAX];
        assert!(made_up.into_iter().all(|handle| table.get(handle) == Err("is no handle")));
    }

    #[test]
    fn a_slot_with_an_exhausted_count_is_not_reused() {
        let mut table = Table { slots: Vec::new(), free: Vec::new() };
        let first = table.insert(Arc::new(1)).expect("room");
        table.remove(first).expect("open");
        table.slots[0].uses = LAST_USE - 1;
        let last = table.insert(Arc::new(2)).expect("room");
        assert_eq!((table.slots.len(), table.get(last)), (1, Ok(Arc::new(2))));
        table.remove(last).expect("open");
        let next = table.insert(Arc::new(3)).expect("room");
        assert_eq!((table.slots.len(), table.get(next)), (2, Ok(Arc::new(3))));
        assert_eq!(table.get(last), Err("was freed"));
    }

    /// A call in progress keeps its embedder.
    #[test]
    fn an_embedder_in_use_outlives_its_handle() {
        let mut table = Table { slots: Vec::new(), free: Vec::new() };
        let handle = table.insert(Arc::new("a")).expect("room");
        let used = table.get(handle).expect("open");
        drop(table.remove(handle));
        assert_eq!((*used, Arc::strong_count(&used)), ("a", 1));
    }
}
