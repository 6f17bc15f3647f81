use super::*;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

/// How the server responds to one request.
#[derive(Clone, Copy)]
enum Act {
    /// The file, or the requested range.
    Serve,
    /// Closes the connection after this many bytes.
    Cut(usize),
    /// The whole file, although a range was requested.
    IgnoreRange,
    /// Other bytes of the right length.
    Wrong,
    /// The whole file, with a declared length that is off by this many bytes.
    Lie(isize),
    /// A partial response that starts elsewhere.
    OtherRange,
    /// An endless response without a length.
    Endless,
    /// Only a status line.
    Status(&'static str),
}

/// Serves one file on loopback, one request per act, and returns the requested ranges.
fn serve(content: Vec<u8>, acts: Vec<Act>) -> (String, JoinHandle<Vec<Option<usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file.gz", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        acts.into_iter().map(|act| answer(listener.accept().unwrap().0, &content, act)).collect()
    });
    (url, thread)
}

fn answer(mut stream: TcpStream, content: &[u8], act: Act) -> Option<usize> {
    let mut range = None;
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap().to_ascii_lowercase();
        if let Some(from) = line.strip_prefix("range: bytes=") {
            range = from.trim_end_matches('-').parse().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    let from = if matches!(act, Act::Serve | Act::Cut(_)) { range.unwrap_or(0) } else { 0 };
    let mut body = content[from.min(content.len())..].to_vec();
    let mut announced = body.len();
    let mut status = "200 OK".to_string();
    if from > 0 {
        status = format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
            content.len() - 1,
            content.len()
        );
    }
    if from >= content.len() && from > 0 {
        (status, announced) = ("416 Range Not Satisfiable".into(), 0);
    }
    match act {
        Act::Serve | Act::IgnoreRange => {}
        Act::Cut(n) => body.truncate(n),
        Act::Wrong => body.iter_mut().for_each(|b| *b ^= 1),
        Act::Lie(more) => announced = announced.strict_add_signed(more),
        Act::OtherRange => status = "206 Partial Content\r\nContent-Range: bytes 3-5/9".into(),
        Act::Status(line) => (status, announced) = (line.into(), 0),
        Act::Endless => {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            while stream.write_all(&[7; 4096]).is_ok() {}
            return range;
        }
    }
    body.truncate(if announced == 0 { 0 } else { body.len() });
    // The client may disconnect first.
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(&body);
    range
}

fn content() -> Vec<u8> {
    (0..100_000u32).map(|i| (i.wrapping_mul(2654435761) >> 11) as u8).collect()
}

fn md5_of(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

struct Outcome {
    result: Result<PathBuf>,
    ranges: Vec<Option<usize>>,
    dir: tempfile::TempDir,
}

/// Fetches from a scripted server into a folder that may contain a partial file.
fn fetch(acts: &[Act], remainder: Option<&[u8]>) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    if let Some(remainder) = remainder {
        fs::write(dir.path().join("file.gz.part"), remainder).unwrap();
    }
    let (url, server) = serve(content(), acts.to_vec());
    let client = Client::new(Duration::from_millis(1), 1 << 22);
    let mut last = 0;
    let result = client.fetch(&[url], dir.path(), "file.gz", &md5_of(&content()), &mut |p| last = p.received);
    if result.is_ok() && !acts.is_empty() {
        assert_eq!(last, 100_000);
    }
    Outcome { result, ranges: server.join().unwrap(), dir }
}

impl Outcome {
    fn succeeded(self) -> Vec<Option<usize>> {
        assert_eq!(fs::read(self.result.unwrap()).unwrap(), content());
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 1, "a temporary file is left");
        self.ranges
    }

    fn failed(&self) -> String {
        assert!(!self.dir.path().join("file.gz").exists());
        let message = self.result.as_ref().unwrap_err().to_string();
        assert!(!message.contains('\n'));
        message
    }
}

#[test]
fn a_whole_file_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    let (url, server) = serve(content(), vec![Act::Serve]);
    let client = Client::new(Duration::from_millis(1), 1 << 22);
    for _ in 0..2 {
        // The second time no request is made; the server no longer runs.
        client
            .fetch(std::slice::from_ref(&url), dir.path(), "file.gz", &md5_of(&content()), &mut |_| {})
            .unwrap();
    }
    assert_eq!(server.join().unwrap(), [None]);
    // A damaged file is not accepted.
    fs::write(dir.path().join("file.gz"), b"damaged").unwrap();
    let (url, server) = serve(content(), vec![Act::Serve]);
    client.fetch(&[url], dir.path(), "file.gz", &md5_of(&content()), &mut |_| {}).unwrap();
    server.join().unwrap();
    assert_eq!(fs::read(dir.path().join("file.gz")).unwrap(), content());
}

#[test]
fn a_broken_transfer_goes_on() {
    let acts = [Act::Cut(30_000), Act::Cut(30_000), Act::Cut(0), Act::Serve];
    assert_eq!(fetch(&acts, None).succeeded(), [None, Some(30_000), Some(60_000), Some(60_000)]);
    // Also after the program was restarted in between.
    assert_eq!(fetch(&[Act::Serve], Some(&content()[..777])).succeeded(), [Some(777)]);
    // Or just before the file was renamed.
    assert_eq!(fetch(&[], Some(&content())).succeeded(), []);
}

#[test]
fn a_server_that_cannot_resume_starts_over() {
    assert_eq!(fetch(&[Act::Cut(500), Act::IgnoreRange], None).succeeded(), [None, Some(500)]);
    assert_eq!(fetch(&[Act::OtherRange, Act::Serve], Some(b"abc")).succeeded(), [Some(3), None]);
    let longer = [content(), vec![1, 2, 3]].concat();
    assert_eq!(fetch(&[Act::Serve, Act::Serve], Some(&longer)).succeeded(), [Some(100_003), None]);
}

#[test]
fn a_wrong_remainder_is_thrown_away() {
    assert_eq!(fetch(&[Act::Serve, Act::Serve], Some(b"something else")).succeeded(), [Some(14), None]);
}

#[test]
fn wrong_bytes_are_refused() {
    let outcome = fetch(&[Act::Wrong, Act::Wrong], None);
    let message = outcome.failed();
    assert!(message.contains("100000 bytes were received with the MD5 sum"), "{message}");
    assert!(message.contains(&format!("expected {}", md5_of(&content()))), "{message}");
    assert!(!outcome.dir.path().join("file.gz.part").exists());
    assert_eq!(fetch(&[Act::Wrong, Act::Serve], None).succeeded(), [None, None]);
}

#[test]
fn a_server_may_lie_about_the_length() {
    // A larger declared length than sent: the bytes are complete all the same.
    fetch(&[Act::Lie(5000)], None).succeeded();
    // A smaller declared length than sent: the declared part is not the file.
    assert_eq!(fetch(&[Act::Lie(-5000), Act::Serve], None).succeeded(), [None, None]);
    let message = fetch(&[Act::Lie(-5000), Act::Lie(-5000)], None).failed();
    assert!(message.contains("95000 bytes were received with the MD5 sum"), "{message}");
    let message = fetch(&[Act::Endless], None).failed();
    assert!(message.contains("more than 4194304 bytes were received"), "{message}");
}

#[test]
fn what_cannot_be_had_is_said() {
    let message = fetch(&[Act::Status("404 Not Found")], None).failed();
    assert!(message.contains(
        "/file.gz: the server answered 404 Not Found; if this machine is offline, put file.gz into"
    ));
    // Transient errors are retried, but not forever.
    let busy = Act::Status("503 Service Unavailable");
    fetch(&[busy, busy, Act::Serve], None).succeeded();
    assert!(fetch(&[busy; ATTEMPTS], None).failed().contains("503"));
    let outcome = fetch(&[Act::Cut(10), Act::Cut(0), Act::Cut(0), Act::Cut(0)], None);
    assert!(outcome.failed().contains("the transfer broke after 10"), "{}", outcome.failed());
    // The received part is kept for the next time.
    assert_eq!(fs::read(outcome.dir.path().join("file.gz.part")).unwrap(), content()[..10]);
}

#[test]
fn the_next_server_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, first) = serve(content(), vec![Act::Status("404 Not Found")]);
    let (good, second) = serve(content(), vec![Act::Serve]);
    let client = Client::new(Duration::from_millis(1), 1 << 22);
    client.fetch(&[bad, good], dir.path(), "file.gz", &md5_of(&content()), &mut |_| {}).unwrap();
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn offline_is_said_at_once() {
    // Nothing listens on a port that was just free.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let urls = [format!("http://127.0.0.1:{port}/file.gz")];
    let client = Client::new(Duration::from_secs(60), 1 << 22);
    let message = client.fetch(&urls, dir.path(), "file.gz", "0", &mut |_| {}).unwrap_err().to_string();
    assert!(
        message.contains("the server cannot be reached") && message.contains("put file.gz into"),
        "{message}"
    );
    let message = download("cifar11", dir.path(), |_| {}).unwrap_err().to_string();
    assert_eq!(
        message,
        "cifar11: unknown data set; available are mnist, fashion-mnist, kmnist, cifar10, cifar100"
    );
}

#[test]
fn sources_are_well_formed() {
    for source in &SOURCES {
        assert!(source.servers.iter().all(|s| s.ends_with('/')));
        for (_, md5) in source.files {
            assert!(md5.len() == 32 && md5.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
        }
    }
}
