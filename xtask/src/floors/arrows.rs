//! Imports between modules: which form a circle, and which lead to a higher floor.

use std::collections::{BTreeMap, BTreeSet};

/// The path of a module, from the root of its crate or package.
pub type Name = Vec<String>;

/// For each module, the modules it depends on and the code that makes it depend on them.
pub type Arrows = BTreeMap<Name, BTreeMap<Name, BTreeSet<String>>>;

/// Notes that `from` depends on another module because of this code.
pub fn add(arrows: &mut Arrows, from: &Name, to: &Name, code: &str) {
    if from != to {
        arrows.entry(from.clone()).or_default().entry(to.clone()).or_default().insert(code.to_owned());
    }
}

/// Returns one text for each set of modules that import each other, directly or through others. The text gives the code
/// behind each arrow of the set.
pub fn circles(arrows: &Arrows) -> Vec<String> {
    let reach: BTreeMap<&Name, BTreeSet<&Name>> =
        arrows.keys().map(|module| (module, reached(module, arrows))).collect();
    let mut reported = BTreeSet::new();
    let mut found = Vec::new();
    for module in arrows.keys().filter(|module| reach[*module].contains(*module)) {
        if reported.contains(module) {
            continue;
        }
        let is_in = |other: &&Name| {
            reach[module].contains(*other) && reach.get(*other).is_some_and(|all| all.contains(module))
        };
        let members: Vec<&Name> = arrows.keys().filter(is_in).collect();
        let mut text = format!("a circle of {} modules", members.len());
        for member in &members {
            for (to, code) in arrows[*member].iter().filter(|(to, _)| members.contains(to)) {
                let code: Vec<&str> = code.iter().map(String::as_str).take(4).collect();
                text += &format!("\n    {} → {}: {}", shown(member), shown(to), code.join(", "));
            }
        }
        reported.extend(members);
        found.push(text);
    }
    found
}

/// Returns one text for each import from a higher floor, and for each module that is on no floor. `floors` starts with the
/// lowest.
pub fn upwards(arrows: &Arrows, floors: &[&[&str]]) -> Vec<String> {
    let floor = |module: &Name| {
        let top = module.first()?;
        floors.iter().position(|floor| floor.contains(&top.as_str()))
    };
    let mut found = Vec::new();
    for (module, imports) in arrows.iter().filter(|(module, _)| !module.is_empty()) {
        let Some(own) = floor(module) else {
            found.push(format!("{} is on no floor", shown(module)));
            continue;
        };
        for (to, code) in imports.iter().filter(|(to, _)| floor(to).is_some_and(|other| other > own)) {
            let code: Vec<&str> = code.iter().map(String::as_str).collect();
            found.push(format!("{} imports upwards from {}: {}", shown(module), shown(to), code.join(", ")));
        }
    }
    found
}

/// The modules that `module` depends on, directly or through others.
pub fn reached<'a>(module: &'a Name, arrows: &'a Arrows) -> BTreeSet<&'a Name> {
    let mut open: Vec<&Name> = vec![module];
    let mut found = BTreeSet::new();
    while let Some(next) = open.pop() {
        for to in arrows.get(next).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(to) {
                open.push(to);
            }
        }
    }
    found
}

fn shown(module: &Name) -> String {
    if module.is_empty() { "the root".into() } else { module.join("/") }
}
