use super::super::samples;
use super::*;

#[test]
fn a_first_deploy_starts_everything() {
    let plan = samples::plan(&samples::host(), &samples::deploy("web 1"));
    insta::assert_snapshot!(paint::plain(&super::plan(&plan)), @r#"
        deploy of shop/local: release 7f3c9e1 (commit 7f3c9e1 "Greet people by name")
        live now: nothing
        services
          bot         started: 1 instance
          web         started: 1 instance
        stages
          preflight   looks at disk, rights, variables, proxy
          backing     makes volume data where absent
          snapshot    if a migration is pending: in the handover
          migrate     rehearses main on a copy; what is pending is done in a handover
          start       web-blue-1-deadbeef
          check       gates of 1 instance
          handover    if a migration is pending: starts 1 instance; snapshot and migration of main
          switch      routes shop.localhost/
          verify      GET shop.localhost/health; then bot
          bake        nothing: nothing was live before
          drain       nothing: the app has none
        variables
          TOKEN: the host's env file
        "#);
    assert!(!nothing_to_do(&plan));
}

#[test]
fn a_deploy_keeps_what_did_not_change() {
    let host = samples::host();
    let first = samples::plan(&host, &samples::deploy("web 1"));
    let plan = samples::plan(&samples::after(&host, &first), &samples::deploy("web 2"));
    insta::assert_snapshot!(paint::plain(&super::plan(&plan)), @r#"
        deploy of shop/local: release 7f3c9e1-2 (commit 7f3c9e1 "Greet people by name")
        live now: release 7f3c9e1 (blue)
        services
          bot         kept: nothing differs from what is live
          web         replaced (blue-green, 1 instance): its image or artifact differs
        stages
          preflight   looks at disk, rights, variables, proxy
          backing     makes volume data where absent
          snapshot    if a migration is pending: in the handover
          migrate     rehearses main on a copy; what is pending is done in a handover
          start       web-green-1-deadbeef
          check       gates of 1 instance
          handover    if a migration is pending: holds requests to web for at most 30 s; stops 1 instance, starts 1 instance; snapshot and migration of main
          switch      routes shop.localhost/
          verify      GET shop.localhost/health
          bake        watches 1 instance for 10 s
          drain       web-blue-1-deadbeef go, with at most 30 s for requests in flight
        variables
          TOKEN: the host's env file
        "#);
}

#[test]
fn a_deploy_of_what_is_live_has_nothing_to_do() {
    let host = samples::host();
    let first = samples::plan(&host, &samples::deploy("web 1"));
    let plan = samples::plan(&samples::after(&host, &first), &samples::deploy("web 1"));
    insta::assert_snapshot!(paint::plain(&super::plan(&plan)), @r#"
        deploy of shop/local: release 7f3c9e1 (commit 7f3c9e1 "Greet people by name")
        live now: release 7f3c9e1 (blue)
        services
          bot         kept: nothing differs from what is live
          web         kept: nothing differs from what is live
        stages
          preflight   nothing: nothing differs from what is live
          backing     nothing: nothing differs from what is live
          snapshot    nothing: no migration is pending
          migrate     nothing: nothing differs from what is live
          start       nothing: nothing differs from what is live
          check       nothing: nothing differs from what is live
          handover    nothing: the app has none
          switch      nothing: nothing differs from what is live
          verify      nothing: the app has none
          bake        nothing: nothing differs from what is live
          drain       nothing: the app has none
        variables
          TOKEN: the host's env file
        "#);
    assert!(nothing_to_do(&plan));
}
