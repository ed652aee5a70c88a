//! Several migrations of one database, the first of them in an image of its own that reads files of the repository: they are one migration.

use super::*;

const LIST: &str = r#"migrate:
      - { image: IMAGE, files: ./migrations, entrypoint: [sh, -e], command: /migrations/up.sh, environment: { STEP: one }, timeout: 60s, compatible: COMPATIBLE, down: /migrations/down.sh }
      - { service: web, command: sh /migrate.sh, timeout: 60s, compatible: COMPATIBLE, down: sh -c 'psql "$DATABASE_URL" -qc "alter table entries drop column seed"' }
"#;

/// A commit whose image of its own runs `up`, and whose service runs `then`.
fn commit_several(app: &App<'_>, name: &str, up: &str, then: &str, compatible: &str) {
    // The image of the service is the same in all of them.
    commit(app, &Version { name: "several", migrate: then, ..FIRST });
    let path = app.repository().join("cutover.yml");
    let config = std::fs::read_to_string(&path).unwrap();
    let line = config.lines().find(|line| line.contains("migrate: {")).unwrap().to_owned();
    let list = LIST.replace("IMAGE", DATABASES_IMAGE).replace("COMPATIBLE", compatible);
    std::fs::write(path, config.replace(line.trim_start(), list.trim_end())).unwrap();
    let run = "sql() { psql \"$DATABASE_URL\" -v ON_ERROR_STOP=1 -qAtc \"$1\"; }\n[ \"$STEP\" = one ]\n";
    write(app.repository(), "migrations/up.sh", &format!("{run}{up}\n"));
    let down = "sql 'alter table entries drop column tool'";
    write(app.repository(), "migrations/down.sh", &format!("{run}{down}\n"));
    app.record(name).unwrap();
}

const TOOL: &str = "sql 'alter table entries add column if not exists tool text'";
/// It stands on what the first has done.
const SEED: &str =
    "sql 'select tool from entries limit 1; alter table entries add column if not exists seed text'";

async fn columns(app: &App<'_>) -> String {
    let asked = "select string_agg(column_name::text, ',' order by column_name) from information_schema.columns where table_name = 'entries'";
    query(app, asked).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_in_an_image_of_its_own_and_one_after_it_are_one_with_one_snapshot() {
    with_ledger(
        "a_migration_in_an_image_of_its_own_and_one_after_it_are_one_with_one_snapshot",
        async |app| {
            let before = dumps(app).len();
            under_traffic(app, "several", "text", async {
                commit_several(app, "several", TOOL, SEED, "expand");
                told(app, &["deploy"], 0).await;
                assert_eq!(columns(app).await, "seed,text,tool");
                assert_eq!(dumps(app).len(), before + 1, "one snapshot before both");

                // The same image, the same command: a file more is what there is to do.
                let more = format!("{TOOL}; sql 'alter table entries add column more text'");
                commit_several(app, "more", &more, SEED, "expand");
                told(app, &["deploy"], 0).await;
                assert_eq!(columns(app).await, "more,seed,text,tool");
            })
            .await;
            assert!(!told(app, &["status"], 0).await.contains("migrate-main"), "it is no service");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn several_migrations_are_rehearsed_held_put_back_and_taken_back_as_one() {
    with_ledger("several_migrations_are_rehearsed_held_put_back_and_taken_back_as_one", async |app| {
        commit_several(app, "several", TOOL, SEED, "breaking");
        told(app, &["snapshot", "create"], 0).await;
        let good = app.cutover(&["migrate", "rehearse"]).await.unwrap().expect(0).unwrap();
        for column in ["+ column entries.tool", "+ column entries.seed"] {
            assert!(good.output.contains(column), "{}", good.output);
        }
        assert_eq!(columns(app).await, "text", "the live schema is as it was");

        under_traffic(app, "held", "text", async {
            commit_several(app, "broken", TOOL, "sql 'select nonsense'", "breaking");
            let talk = told(app, &["deploy"], 5).await;
            assert!(talk.contains("its command 2 of 2, in `web`: exited with code 1"), "{talk}");
            assert_eq!(columns(app).await, "text", "what the first had done is put back");

            commit_several(app, "several", TOOL, SEED, "breaking");
            told(app, &["deploy"], 0).await;
            assert_eq!(columns(app).await, "seed,text,tool");

            // The last first, each in its own image.
            told(app, &["rollback", "--migrate-down", "--yes"], 0).await;
            assert_eq!(columns(app).await, "text");
        })
        .await;
        serves(app, "first").await;
    })
    .await;
}
