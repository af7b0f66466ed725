//! Which kind an entry is of, by its form and by the extension of its name.
//!
//! A table of our own: a MIME type tells neither source code nor archives from other text and other bytes, so that
//! a library of those would need such a table behind it.

use std::path::Path;

/// What the file system says an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Bytes.
    File,
    /// Names.
    Directory,
    /// The path of something else, which is not followed.
    Link,
    /// A device, a socket, a pipe.
    Special,
}

/// The kind of a directory.
pub const DIRECTORY: &str = "directory";

/// The kind of an entry of this form and name.
#[must_use]
pub fn kind_of(form: Form, name: &Path) -> &'static str {
    match form {
        Form::Directory => DIRECTORY,
        Form::Link => "link",
        Form::Special => "special",
        Form::File => {
            let extension = name.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
            by_extension(&extension)
        }
    }
}

fn by_extension(extension: &str) -> &'static str {
    match extension {
        "avif" | "bmp" | "gif" | "heic" | "ico" | "jpeg" | "jpg" | "png" | "raw" | "svg" | "tif" | "tiff"
        | "webp" => "image",
        "avi" | "m4v" | "mkv" | "mov" | "mp4" | "mpeg" | "mpg" | "webm" | "wmv" => "video",
        "aac" | "aiff" | "flac" | "m4a" | "mid" | "mp3" | "ogg" | "opus" | "wav" => "audio",
        "doc" | "docx" | "epub" | "md" | "odp" | "ods" | "odt" | "pdf" | "ppt" | "pptx" | "rtf" | "tex"
        | "txt" | "xls" | "xlsx" => "document",
        "c" | "cc" | "cpp" | "cs" | "css" | "dart" | "go" | "h" | "hpp" | "hs" | "html" | "java" | "js"
        | "jsx" | "kt" | "lua" | "php" | "pl" | "py" | "rb" | "rs" | "scala" | "sh" | "sql" | "swift"
        | "ts" | "tsx" | "zig" => "source code",
        "7z" | "bz2" | "deb" | "gz" | "jar" | "rar" | "rpm" | "tar" | "tgz" | "xz" | "zip" | "zst" => {
            "archive"
        }
        "csv" | "db" | "ini" | "json" | "lock" | "parquet" | "sqlite" | "toml" | "xml" | "yaml" | "yml" => {
            "data"
        }
        "otf" | "ttf" | "woff" | "woff2" => "font",
        "a" | "bin" | "dll" | "dylib" | "exe" | "o" | "rlib" | "so" | "wasm" => "program",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_of_a_file_tells_its_kind() {
        for (name, kind) in [
            ("beach.JPG", "image"),
            ("main.rs", "source code"),
            ("backup.tar.gz", "archive"),
            ("Makefile", "other"),
            (".zip", "other"),
        ] {
            assert_eq!(kind_of(Form::File, Path::new(name)), kind, "{name}");
        }
        assert_eq!(kind_of(Form::Directory, Path::new("photos.zip")), DIRECTORY);
    }
}
