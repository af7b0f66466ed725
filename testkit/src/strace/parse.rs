//! The lines of a trace, such as `17 pwrite64(5</tmp/store/log>, "…"..., 100, 4096) = 100`.

use std::collections::HashMap;

/// A call begins, or has ended. A line is both, unless another thread came in between.
#[derive(Debug)]
pub(crate) enum Event {
    Begin(Call),
    End(Call),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) thread: u32,
    pub(crate) name: String,
    /// As strace prints them. At the beginning of a call those that it returns may be missing.
    pub(crate) arguments: Vec<String>,
    /// `None` until the call has ended.
    pub(crate) result: Option<String>,
}

impl Call {
    pub(crate) fn argument(&self, at: usize) -> &str {
        self.arguments.get(at).map_or("", String::as_str)
    }

    /// The number that the call returned; `None` if it failed.
    pub(crate) fn returned(&self) -> Option<u64> {
        let result = self.result.as_deref()?;
        let digits = result.split(['<', ' ']).next()?;
        match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => digits.parse().ok(),
        }
    }

    /// The paths in the arguments and in the result, of files that are open or named.
    pub(crate) fn paths(&self) -> impl Iterator<Item = String> {
        let texts = self.arguments.iter().chain(&self.result);
        texts.filter_map(|text| path_of_file(text).or_else(|| quoted(text)).map(str::to_owned))
    }
}

/// The path of an open file: that in `5</tmp/store/log>`. `None` for one that has no name any more, and for a pipe.
pub(crate) fn path_of_file(text: &str) -> Option<&str> {
    let path = text.split_once('<')?.1.strip_suffix('>')?;
    path.starts_with('/').then_some(path)
}

/// The path in quotes.
pub(crate) fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// The events of a trace, in their order.
pub(crate) fn events(trace: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut unfinished: HashMap<u32, String> = HashMap::new();
    for line in trace.lines() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let Ok(thread) = thread.parse() else { continue };
        let text = text.trim_start();
        if let Some(begun) = text.strip_suffix("<unfinished ...>") {
            events.extend(call(thread, begun).map(Event::Begin));
            unfinished.insert(thread, begun.trim_end().to_owned());
        } else if let Some(resumed) = text.strip_prefix("<... ") {
            let begun = unfinished.remove(&thread).unwrap_or_default();
            let rest = resumed.split_once(" resumed>").map_or("", |(_, rest)| rest);
            events.extend(call(thread, &(begun + rest)).map(Event::End));
        } else if let Some(call) = call(thread, text) {
            events.push(Event::Begin(call.clone()));
            events.push(Event::End(call));
        }
    }
    events
}

/// `name(argument, argument) = result`, or the beginning of that.
fn call(thread: u32, text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let mut call = Call { thread, name: name.to_owned(), ..Call::default() };
    let (mut depth, mut argument) = (0_u32, String::new());
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                argument.push('"');
                while let Some(c) = chars.next() {
                    argument.push(c);
                    match c {
                        '\\' => argument.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                continue;
            }
            ')' if depth == 0 => {
                call.result = chars.as_str().trim_start().strip_prefix("= ").map(str::to_owned);
                break;
            }
            ',' if depth == 0 => {
                call.arguments.push(std::mem::take(&mut argument).trim().to_owned());
                continue;
            }
            '[' | '{' | '(' | '<' => depth += 1,
            ']' | '}' | ')' | '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        argument.push(c);
    }
    if !argument.trim().is_empty() {
        call.arguments.push(argument.trim().to_owned());
    }
    Some(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_calls() {
        let trace = "\
7 openat(AT_FDCWD</tmp/a, b>, \"/tmp/\\\"x)\", O_RDWR|O_CREAT, 0666) = 5</tmp/x>
7 pwrite64(5</tmp/x>, \"a, b)\"..., 100, 4096 <unfinished ...>
8 fsync(6</tmp>(deleted)) = -1 EIO (Input/output error) (INJECTED)
7 <... pwrite64 resumed>) = 100
7 mmap(NULL, 16, PROT_WRITE, MAP_SHARED, 5</tmp/x>, 0) = 0x7f00
7 +++ exited with 0 +++";
        let calls: Vec<_> = events(trace)
            .into_iter()
            .filter_map(|event| match event {
                Event::End(call) => Some(call),
                Event::Begin(_) => None,
            })
            .collect();
        let shown: Vec<_> = calls.iter().map(|call| (call.name.as_str(), call.returned())).collect();
        let expected =
            [("openat", Some(5)), ("fsync", None), ("pwrite64", Some(100)), ("mmap", Some(0x7f00))];
        assert_eq!(shown, expected);
        assert_eq!(calls[0].arguments[1], r#""/tmp/\"x)""#);
        assert_eq!(path_of_file(calls[0].argument(0)), Some("/tmp/a, b"));
        assert_eq!(calls[0].result.as_deref().and_then(path_of_file), Some("/tmp/x"));
        assert_eq!(path_of_file(calls[1].argument(0)), None, "it has no name any more");
        assert_eq!(calls[2].arguments.len(), 4);
    }
}
