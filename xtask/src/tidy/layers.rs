//! Who may depend on whom: lower layers only, never a sibling.
//!
//! ```text
//! {memory, lz4, noise, packed} → protocol → {engine, transport, sys} → relay → {capture, page-server, fault-handler, sender-seam} → sender-body → programs → criu-bridge → hostile
//! ```
//!
//! `target` knows nothing of the others. `xtask` measures the kernel by the same calls as the programs, but for tests
//! that have no better place. The simulator is a program of the engine's alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use super::{Finding, run};

const LAYERS: [&[&str]; 9] = [
    &["memory", "lz4", "noise", "packed"],
    &["protocol"],
    &["engine", "transport", "sys"],
    &["relay"],
    &["capture", "page-server", "fault-handler", "sender-seam"],
    &["sender-body"],
    &["sender-lib", "receiver", "node", "simulator", "xtask"],
    &["criu-bridge"],
    &["hostile"],
];

/// Packages of ours that use none of ours.
const STRANGERS: [&str; 1] = ["target"];

/// Packages that do less than their layer allows.
const NARROWER: [(&str, &[&str]); 5] = [
    ("xtask", &["memory", "sys"]),
    ("simulator", &["memory", "protocol", "engine"]),
    ("sender-seam", &["memory", "protocol", "sys"]),
    (
        "sender-body",
        &[
            "memory",
            "protocol",
            "engine",
            "sys",
            "transport",
            "relay",
            "capture",
            "page-server",
            "sender-seam",
        ],
    ),
    ("sender-lib", &["packed", "protocol", "sys", "sender-seam"]),
];

/// Packages that the parasite is made of, which must do without a standard library.
const NO_STD: [&str; 14] = [
    "memory",
    "lz4",
    "noise",
    "packed",
    "protocol",
    "engine",
    "transport",
    "sys",
    "relay",
    "capture",
    "page-server",
    "sender-seam",
    "sender-body",
    "sender-lib",
];

/// Checks the workspace at `root` as cargo sees it.
pub(super) fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--manifest-path"];
    let json = run(Command::new(cargo).args(arguments).arg(root.join("Cargo.toml")))?;
    let metadata: Value = serde_json::from_str(&json).context("reading cargo metadata")?;
    let packages = packages(&metadata, root);
    let mut findings = Vec::new();
    for package in packages.values() {
        let manifest = std::fs::read_to_string(root.join(&package.manifest))?;
        let finding = |text| Finding { path: package.manifest.clone(), line: 1, text };
        findings.extend(check_dependencies(package, &packages).into_iter().map(finding));
        if !manifest.contains("[lints]\nworkspace = true") {
            findings.push(finding("does not take the workspace's lints".to_owned()));
        }
        if NO_STD.contains(&package.name.as_str()) {
            let library = root.join(&package.manifest).with_file_name("src").join("lib.rs");
            let text = std::fs::read_to_string(library)?;
            if !text.lines().any(|line| line.starts_with("#!") && line.contains("no_std")) {
                findings.push(finding("is part of the parasite and must be no_std".to_owned()));
            }
        }
    }
    Ok(findings)
}

#[derive(Debug)]
struct Package {
    name: String,
    /// Relative to the root.
    manifest: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug)]
struct Dependency {
    on: String,
    /// For its tests only.
    tests: bool,
}

fn packages(metadata: &Value, root: &Path) -> BTreeMap<String, Package> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let name = text(&package["name"]);
            let manifest = text(&package["manifest_path"]);
            let relative = Path::new(&manifest).strip_prefix(root).map(|path| path.display().to_string());
            let dependencies = list(&package["dependencies"])
                .iter()
                .map(|on| Dependency { on: text(&on["name"]), tests: on["kind"] == "dev" })
                .collect();
            (name.clone(), Package { name, manifest: relative.unwrap_or(manifest), dependencies })
        })
        .collect()
}

fn check_dependencies(package: &Package, packages: &BTreeMap<String, Package>) -> Vec<String> {
    let name = package.name.as_str();
    if layer(name).is_none() && !STRANGERS.contains(&name) {
        return vec!["has no place among the layers: give it one in xtask/src/tidy/layers.rs".to_owned()];
    }
    // A package's tests may use it with other features.
    let ours =
        package.dependencies.iter().filter(|Dependency { on, .. }| packages.contains_key(on) && on != name);
    ours.filter(|dependency| !may_use(name, &dependency.on, dependency.tests))
        .map(|dependency| format!("{name} must not use {}", dependency.on))
        .collect()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

fn may_use(name: &str, on: &str, tests: bool) -> bool {
    if name == "xtask" && tests {
        return layer(on) < layer(name) && layer(on).is_some();
    }
    let narrower = NARROWER.iter().find(|(narrow, _)| *narrow == name);
    let (Some(own), Some(lower)) = (layer(name), layer(on)) else { return false };
    lower < own && narrower.is_none_or(|(_, allowed)| allowed.contains(&on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_layers_may_be_used_and_siblings_and_programs_may_not() {
        for (name, on) in
            [("engine", "protocol"), ("receiver", "fault-handler"), ("sender-body", "page-server")]
        {
            assert!(may_use(name, on, false), "{name} uses {on}");
        }
        for (name, on) in [
            ("protocol", "engine"),
            ("engine", "sys"),
            ("page-server", "fault-handler"),
            ("receiver", "sender-lib"),
            ("sender-lib", "engine"),
            ("sender-body", "fault-handler"),
            ("simulator", "sys"),
            ("target", "memory"),
            ("xtask", "engine"),
            ("engine", "xtask"),
        ] {
            assert!(!may_use(name, on, false), "{name} uses {on}");
        }
        assert!(may_use("xtask", "sys", true));
        assert!(!may_use("xtask", "receiver", true));
    }

    #[test]
    fn a_package_without_a_place_is_found() {
        let package = Package {
            name: "new".to_owned(),
            manifest: "new/Cargo.toml".to_owned(),
            dependencies: Vec::new(),
        };
        assert_eq!(check_dependencies(&package, &BTreeMap::new()).len(), 1);
    }
}
