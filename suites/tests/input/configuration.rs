//! What can be wrong with cutover.yml.

use cutover_testkit::site::Site;

use cutover_suites::input::{GOOD, Golden, Shop};

/// Each list holds the one before nine times.
fn laughs() -> String {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let lists = names.windows(2).map(|pair| {
        let inside = vec![format!("*{}", pair[0]); 9].join(", ");
        format!("x-{0}: &{0} [{inside}]\n", pair[1])
    });
    std::iter::once("x-a: &a [ha, ha]\n".to_owned()).chain(lists).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_makes_no_sense_touches_nothing() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("configuration");
    let edited = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replace(from, to)
    };
    let cases: [(&str, String); 16] = [
        ("empty configuration", String::new()),
        ("unknown key", edited("health:", "helth:")),
        ("wrong type", edited("{ host: shop.localhost }", "[shop.localhost]")),
        ("port 0", edited("artifact: web", "artifact: web\n    port: 0")),
        ("two routes alike", GOOD.replace("bake: 0", "  api: { artifact: web, command: ./guestbook serve, route: { host: shop.localhost } }\nbake: 0")),
        ("a cycle in depends_on", GOOD.replace("    route", "    depends_on: [api]\n    route").replace("bake: 0", "  api: { artifact: web, command: ./guestbook serve, depends_on: [web] }\nbake: 0")),
        ("a service that depends on itself", edited("    route", "    depends_on: [web]\n    route")),
        ("no mapping", "just words\n".into()),
        ("bad indentation", GOOD.replace("    command", "   command")),
        ("the same key twice", GOOD.replace("bake: 0", "bake: 0\nbake: 1s")),
        ("an artifact that is not there", edited("artifact: web", "artifact: build/web")),
        ("ten megabytes", format!("{GOOD}x-note: {}\n", "a".repeat(10 << 20))),
        ("nested deeply", format!("{GOOD}x-deep: {}{}\n", "[".repeat(20_000), "]".repeat(20_000))),
        ("a billion laughs", format!("{}{}", laughs(), GOOD.replace("HOST: 127.0.0.1", "HOST: *i"))),
        ("no services", "app: shop\n".into()),
        ("wrong name of the app", edited("app: shop", "app: My Shop")),
    ];
    for (case, text) in cases {
        shop.configured(&text);
        shop.fails(&mut golden, case, &["deploy"], 10).await;
    }
    let garbage: Vec<u8> = (0..=255).cycle().take(4096).collect();
    std::fs::write(shop.app.repository().join("cutover.yml"), garbage).unwrap();
    shop.fails(&mut golden, "binary garbage", &["deploy"], 10).await;
    std::fs::remove_file(shop.app.repository().join("cutover.yml")).unwrap();
    shop.fails(&mut golden, "no configuration", &["deploy"], 10).await;
    shop.recovers("bad configurations").await;
    golden.compare();
}
