use cutover_core::artifact::{Entry, EntryKind, tree_hash};
use cutover_core::wire::ParcelEntry;

use super::*;

/// The chunks of these tests have so many bytes.
const CHUNK: usize = 1_000;

struct Host {
    _root: tempfile::TempDir,
    layout: Layout,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        Self { _root: root, layout }
    }

    fn artifacts(&self) -> Artifacts {
        Artifacts::new(self.layout.clone())
    }

    fn begin(&self, parcels: &[&Given]) -> (Incoming, Vec<u32>) {
        let mut incoming =
            Incoming::begin(self.layout.clone(), parcels.iter().map(|given| given.parcel.clone()).collect());
        let lacking = numbers(&incoming.lacking());
        (incoming, lacking)
    }

    /// Brings one whole; gives how many chunks of it had to come.
    fn bring(&self, given: &Given) -> usize {
        let (mut incoming, lacking) = self.begin(&[given]);
        incoming.take(given.packed(&lacking).as_slice(), count(&lacking)).unwrap();
        assert_eq!(incoming.unpack().unwrap(), []);
        lacking.len()
    }

    /// Files that wait in the store of parcels, lists apart.
    fn waiting(&self) -> usize {
        let entries = fs::read_dir(self.layout.parcels()).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_none_or(|extension| extension != "list")).count()
    }
}

fn numbers(ranges: &[(u32, u32)]) -> Vec<u32> {
    cutover_core::wire::of_ranges(ranges).collect()
}

fn count(lacking: &[u32]) -> u32 {
    u32::try_from(lacking.len()).unwrap()
}

/// A parcel and what is in it.
struct Given {
    parcel: Parcel,
    contents: BTreeMap<ContentHash, Vec<u8>>,
}

impl Given {
    /// An artifact of files.
    fn artifact(files: &[(&str, &[u8])]) -> Self {
        let entries: Vec<Entry> = files
            .iter()
            .map(|(path, content)| Entry {
                path: (*path).to_owned(),
                kind: EntryKind::File,
                content: ContentHash::of(content),
            })
            .collect();
        Self::new(Destination::Artifact { hash: tree_hash(&entries) }, files)
    }

    fn context(files: &[(&str, &[u8])]) -> Self {
        let to = Destination::Context { app: "shop/local".parse().unwrap(), service: "web".parse().unwrap() };
        Self::new(to, files)
    }

    fn new(to: Destination, files: &[(&str, &[u8])]) -> Self {
        let mut contents = BTreeMap::new();
        let mut chunk = |bytes: &[u8]| {
            let hash = ContentHash::of(bytes);
            contents.insert(hash.clone(), bytes.to_vec());
            Chunk(hash, u32::try_from(bytes.len()).unwrap())
        };
        let entries = files
            .iter()
            .map(|(path, content)| ParcelEntry {
                path: (*path).to_owned(),
                kind: Some(EntryKind::File),
                target: None,
                modified: 0,
                chunks: content.chunks(CHUNK).map(&mut chunk).collect(),
            })
            .collect();
        Self { parcel: Parcel { to, entries }, contents }
    }

    fn hash(&self) -> ContentHash {
        self.parcel.hash()
    }

    /// Chunks as they are sent.
    fn packed(&self, numbers: &[u32]) -> Vec<u8> {
        let parcels = [self.parcel.clone()];
        let chunks = distinct_chunks(&parcels);
        let bytes: Vec<u8> =
            numbers.iter().flat_map(|number| self.contents[&chunks[*number as usize].0].clone()).collect();
        zstd::encode_all(bytes.as_slice(), 1).unwrap()
    }
}

/// Bytes of which no two chunks are the same.
fn content(seed: u8, chunks: usize) -> Vec<u8> {
    (0..chunks * CHUNK)
        .map(|at| seed.wrapping_add(u8::try_from(at % CHUNK % 251 + at / CHUNK).unwrap_or(seed)))
        .collect()
}

#[test]
fn only_what_no_kept_artifact_has_is_to_come() {
    let host = Host::new();
    let (first, mut second) = (content(1, 5), content(1, 5));
    let given = Given::artifact(&[("a/server", &first), ("empty", b""), ("page", b"hello")]);
    assert_eq!(host.bring(&given), 6);
    let folder = host.layout.artifact(&given.hash());
    assert_eq!(fs::read(folder.join("a/server")).unwrap(), first);
    assert_eq!(fs::read(folder.join("page")).unwrap(), b"hello");
    assert_eq!(host.bring(&given), 0, "it is there");

    second[2 * CHUNK] ^= 1;
    let changed = Given::artifact(&[("a/server", &second), ("empty", b""), ("renamed", b"hello")]);
    assert_eq!(host.bring(&changed), 1);
    assert_eq!(fs::read(host.layout.artifact(&changed.hash()).join("a/server")).unwrap(), second);
    assert_eq!(host.waiting(), 0);
}

#[test]
fn an_artifact_that_went_gives_nothing_any_more() {
    let host = Host::new();
    let given = Given::artifact(&[("a", &content(1, 3))]);
    host.bring(&given);
    host.artifacts().remove(&given.hash()).unwrap();
    assert_eq!(host.begin(&[&given]).1.len(), 3);
    assert!(!host.layout.chunks(&given.hash()).exists());
}

#[test]
fn what_came_before_a_connection_was_lost_is_not_to_come_again() {
    let host = Host::new();
    let given = Given::artifact(&[("a", &content(1, 5))]);
    let (mut incoming, lacking) = host.begin(&[&given]);
    let mut torn = given.packed(&lacking[..2]);
    incoming.take(torn.as_slice(), 2).unwrap();
    torn = given.packed(&lacking[2..]);
    torn.truncate(torn.len() / 2);
    assert!(matches!(incoming.take(torn.as_slice(), 3), Err(ParcelError::Packed(_))));
    drop(incoming);

    let (mut again, lacking) = host.begin(&[&given]);
    assert!((1..=3).contains(&lacking.len()) && lacking.contains(&4), "{lacking:?}");
    again.take(given.packed(&lacking).as_slice(), count(&lacking)).unwrap();
    assert_eq!(again.unpack().unwrap(), []);
    assert!(host.artifacts().has(&given.hash()));
    assert_eq!(host.waiting(), 0);
}

#[test]
fn a_kept_file_that_was_changed_is_found_and_what_it_should_be_is_asked_for() {
    let host = Host::new();
    let (one, mut two) = (content(1, 5), content(1, 5));
    let given = Given::artifact(&[("a", &one), ("b", b"hello")]);
    host.bring(&given);
    // When two chunks of the kept file are overwritten.
    let kept = host.layout.artifact(&given.hash()).join("a");
    let mut edited = one.clone();
    edited[CHUNK] ^= 1;
    edited[4 * CHUNK] ^= 1;
    fs::remove_file(&kept).unwrap();
    fs::write(&kept, &edited).unwrap();

    two[0] ^= 1;
    let next = Given::artifact(&[("a", &two), ("b", b"hello")]);
    let (mut incoming, lacking) = host.begin(&[&next]);
    assert_eq!(lacking, [0]);
    incoming.take(next.packed(&lacking).as_slice(), 1).unwrap();
    let lacking = numbers(&incoming.unpack().unwrap());
    assert_eq!(lacking, [1, 4], "both at once");
    incoming.take(next.packed(&lacking).as_slice(), 2).unwrap();
    assert_eq!(incoming.unpack().unwrap(), []);
    assert_eq!(fs::read(host.layout.artifact(&next.hash()).join("a")).unwrap(), two);
}

#[test]
fn others_than_announced_are_refused_and_so_is_more_than_was_asked_for() {
    let host = Host::new();
    let given = Given::artifact(&[("a", &content(1, 2))]);
    let (mut incoming, _) = host.begin(&[&given]);
    let false_ones = zstd::encode_all(content(9, 2).as_slice(), 1).unwrap();
    assert!(matches!(incoming.take(false_ones.as_slice(), 2), Err(ParcelError::Other { .. })));
    let (mut incoming, lacking) = host.begin(&[&given]);
    incoming.take(given.packed(&lacking).as_slice(), 2).unwrap();
    assert!(matches!(incoming.take(given.packed(&lacking).as_slice(), 1), Err(ParcelError::List(_))));
    assert_eq!(host.artifacts().list().unwrap(), []);
}

#[test]
fn a_tree_that_leaves_its_folder_is_refused_and_nothing_stays() {
    let host = Host::new();
    let given = Given::artifact(&[("../out", b"x")]);
    let (mut incoming, lacking) = host.begin(&[&given]);
    incoming.take(given.packed(&lacking).as_slice(), 1).unwrap();
    assert!(matches!(incoming.unpack(), Err(ParcelError::Artifact(_))));
    assert_eq!(host.artifacts().list().unwrap(), []);
    assert!(!host.layout.state().join("out").exists() && !host.layout.artifacts().join("out").exists());
}

#[test]
fn a_context_is_an_archive_and_the_next_one_is_made_of_it() {
    let host = Host::new();
    let (one, mut two) = (content(1, 4), content(1, 4));
    let given = Given::context(&[("Dockerfile", b"FROM scratch"), ("a", &one)]);
    assert_eq!(host.bring(&given), 5);
    two[3 * CHUNK] ^= 1;
    let next = Given::context(&[("Dockerfile", b"FROM scratch"), ("new", b"x"), ("a", &two)]);
    let (mut incoming, lacking) = host.begin(&[&next]);
    assert_eq!(lacking.len(), 2);
    incoming.take(next.packed(&lacking).as_slice(), 2).unwrap();
    assert_eq!(incoming.unpack().unwrap(), []);

    assert!(!incoming.contexts.contains_key(&given.hash()));
    let mut archive = tar::Archive::new(
        fs::File::open(host.layout.context(&"shop/local".parse().unwrap(), &"web".parse().unwrap())).unwrap(),
    );
    let mut contents = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        contents.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    let expected = [("Dockerfile", b"FROM scratch".to_vec()), ("a", two), ("new", b"x".to_vec())];
    assert_eq!(contents, expected.into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).collect());

    kept::forget_app(&host.layout, &"shop/local".parse().unwrap()).unwrap();
    assert_eq!(fs::read_dir(host.layout.contexts()).unwrap().count(), 0);
}

#[test]
fn lists_that_make_no_sense_are_refused() {
    let packed = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
    assert!(matches!(Incoming::announced(&b"no zstd"[..]), Err(ParcelError::Packed(_))));
    assert!(matches!(Incoming::announced(packed(b"[{}]").as_slice()), Err(ParcelError::List(_))));
    let mut large = Given::artifact(&[("a", b"x")]).parcel;
    large.entries[0].chunks[0].1 = MOST_CHUNK + 1;
    let text = serde_json::to_vec(&[large]).unwrap();
    assert!(matches!(Incoming::announced(packed(&text).as_slice()), Err(ParcelError::List(_))));
}
