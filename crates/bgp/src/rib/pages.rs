//! Storage in pages: records are named by four octets, never move, and growing copies nothing.

use std::fmt::Debug;
use std::ops::{Index, IndexMut};

/// Names no record.
pub(super) const NONE: u32 = u32::MAX;

const PAGE: usize = 1024;

/// Small records in pages of 1,024. Growing never copies what is there, so there is no peak of twice the size.
#[derive(Debug)]
pub(super) struct Pages<T> {
    pages: Vec<Box<[T; PAGE]>>,
}

impl<T: Copy + Default + Debug> Pages<T> {
    pub(super) fn new() -> Self {
        Self { pages: Vec::new() }
    }

    /// Makes room for the record of this index, default where it is new.
    pub(super) fn reserve(&mut self, index: u32) {
        while self.pages.len() <= index as usize / PAGE {
            if let Ok(page) = vec![T::default(); PAGE].into_boxed_slice().try_into() {
                self.pages.push(page);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.pages = Vec::new();
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages.len() * size_of::<[T; PAGE]>()
    }
}

impl<T> Index<u32> for Pages<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.pages[index as usize / PAGE][index as usize % PAGE]
    }
}

impl<T> IndexMut<u32> for Pages<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.pages[index as usize / PAGE][index as usize % PAGE]
    }
}

/// A record with a field that names the next free one while it is free itself.
pub(super) trait Record: Copy + Default + Debug {
    fn link(&self) -> u32;
    fn set_link(&mut self, next: u32);
}

/// Records that come and go. When the last one goes its memory goes with it.
#[derive(Debug)]
pub(super) struct Slab<T> {
    pages: Pages<T>,
    free: u32,
    used: u32,
    live: u32,
}

impl<T: Record> Slab<T> {
    pub(super) fn new() -> Self {
        Self {
            pages: Pages::new(),
            free: NONE,
            used: 0,
            live: 0,
        }
    }

    pub(super) fn insert(&mut self, record: T) -> u32 {
        self.live += 1;
        let index = if self.free == NONE {
            let index = self.used;
            self.pages.reserve(index);
            self.used += 1;
            index
        } else {
            let index = self.free;
            self.free = self.pages[index].link();
            index
        };
        self.pages[index] = record;
        index
    }

    pub(super) fn remove(&mut self, index: u32) {
        self.live -= 1;
        if self.live == 0 {
            *self = Self::new();
            return;
        }
        let mut record = T::default();
        record.set_link(self.free);
        self.pages[index] = record;
        self.free = index;
    }

    /// How many records there are.
    pub(super) fn len(&self) -> u32 {
        self.live
    }

    /// One above the highest index in use since the slab was last empty.
    pub(super) fn end(&self) -> u32 {
        self.used
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages.bytes()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.pages[index]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.pages[index]
    }
}
