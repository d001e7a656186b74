//! What the targets of the content crate share: input that says how it is cut.

/// Takes places to cut at from the front of the input, and cuts the rest there.
pub fn cut(input: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (count, rest) = input.split_first()?;
    let (places, bytes) = rest.split_at_checked(2 * usize::from(count % 8))?;
    let mut ends: Vec<usize> = places
        .chunks(2)
        .map(|place| usize::from(u16::from_be_bytes([place[0], place[1]])) % (bytes.len() + 1))
        .collect();
    ends.extend([0, bytes.len()]);
    ends.sort_unstable();
    Some((bytes, ends.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()))
}

/// A parser is told by its answer to pieces, as text. However the bytes are cut, it must be the same.
#[allow(dead_code, reason = "one target looks at datagrams, which are not cut")]
pub fn agree<P>(input: &[u8], new: impl Fn() -> P, push: impl Fn(&mut P, &[u8]) -> String) {
    let Some((bytes, pieces)) = cut(input) else { return };
    let whole = push(&mut new(), bytes);
    let mut parser = new();
    let mut last = push(&mut parser, &[]);
    for piece in pieces {
        last = push(&mut parser, piece);
    }
    assert_eq!(whole, last);
    let mut parser = new();
    let mut last = push(&mut parser, &[]);
    for byte in bytes.chunks(1) {
        last = push(&mut parser, byte);
    }
    assert_eq!(whole, last);
    // What is final stays so.
    let more = push(&mut parser, b"\x16\r\n\0more");
    assert!(last == "NeedMore" || last == "Undecided" || last == more, "{last}, then {more}");
}

/// Names are as policies have them, and as long as DNS lets them be.
#[allow(dead_code, reason = "one target looks at datagrams, which are not cut")]
pub fn checked(answer: sluice_content::Answer<'_>) -> String {
    if let sluice_content::Answer::Name(name, _) = answer {
        assert!(!name.is_empty() && name.len() <= sluice_content::LONGEST_NAME, "{name:?}");
        assert!(!name.iter().any(u8::is_ascii_uppercase) && !name.ends_with(b"."), "{name:?}");
    }
    format!("{answer:?}")
}
