//! Zip archives, written byte by byte so that each part of one can lie.

/// A member: what the directory says of it, and what its own header says where that differs.
#[derive(Clone)]
pub struct Member {
    pub name: String,
    pub data: Vec<u8>,
    /// What it unpacks to, where the data is compressed.
    pub size: Option<u32>,
    pub crc: u32,
    pub method: u16,
    pub flags: u16,
    /// Made by, and the attributes that go with it.
    pub made_by: u16,
    pub attributes: u32,
    /// Where the directory says its header is.
    pub header: Option<u32>,
    /// The name in its own header.
    pub own_name: Option<String>,
    /// The size in its own header.
    pub own_size: Option<u32>,
}

impl Member {
    pub fn new(name: &str, data: impl Into<Vec<u8>>) -> Self {
        let data = data.into();
        let crc = crc32fast::hash(&data);
        Self {
            name: name.into(),
            data,
            size: None,
            crc,
            method: 0,
            flags: 0,
            made_by: 0,
            attributes: 0,
            header: None,
            own_name: None,
            own_size: None,
        }
    }

    /// Deflated.
    pub fn compressed(name: &str, data: &[u8]) -> Self {
        use std::io::Write;
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).expect("memory takes it");
        let mut member = Self::new(name, encoder.finish().expect("memory takes it"));
        member.crc = crc32fast::hash(data);
        member.size = Some(u32::try_from(data.len()).expect("a small test"));
        member.method = 8;
        member
    }
}

/// The archive of these members, in this order.
pub fn archive(members: &[Member]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let at = u32::try_from(bytes.len()).expect("a small test");
        let stored = u32::try_from(member.data.len()).expect("a small test");
        let size = member.size.unwrap_or(stored);
        let own_name = member.own_name.as_ref().unwrap_or(&member.name);
        let own_size = member.own_size.unwrap_or(size);
        bytes.extend(b"PK\x03\x04\x14\x00");
        bytes.extend(shorts(&[member.flags, member.method, 0, 0]));
        bytes.extend(words(&[member.crc, stored, own_size]));
        bytes.extend(shorts(&[length(own_name), 0]));
        bytes.extend(own_name.as_bytes());
        bytes.extend(&member.data);
        directory.extend(b"PK\x01\x02");
        directory.extend(shorts(&[member.made_by, 20, member.flags, member.method, 0, 0]));
        directory.extend(words(&[member.crc, stored, size]));
        directory.extend(shorts(&[length(&member.name), 0, 0, 0, 0]));
        directory.extend(words(&[member.attributes, member.header.unwrap_or(at)]));
        directory.extend(member.name.as_bytes());
    }
    let start = u32::try_from(bytes.len()).expect("a small test");
    let size = u32::try_from(directory.len()).expect("a small test");
    let count = u16::try_from(members.len()).unwrap_or(u16::MAX);
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06");
    bytes.extend(shorts(&[0, 0, count, count]));
    bytes.extend(words(&[size, start]));
    bytes.extend(shorts(&[0]));
    bytes
}

fn length(name: &str) -> u16 {
    u16::try_from(name.len()).expect("a small test")
}

fn shorts(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}
