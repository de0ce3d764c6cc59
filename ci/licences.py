#!/usr/bin/env python3
"""licences.py: what `cargo metadata` says of every crate in Cargo.lock. Fails when

- a crate's licence is not covered by ALLOWED, or it has none;
- the library's own build pulls in something that needs a C toolchain.

Prints crates that come in several versions: they cost build time, but are no failure. What this does not do: look for
known vulnerabilities. The advisory database is a download of its own; where that is possible, run `cargo audit`.
"""
import collections
import json
import re
import subprocess
import sys

ALLOWED = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib",
           "Unlicense", "Unicode-3.0", "0BSD", "CC0-1.0"}
C_TOOLCHAIN = {"cc", "cmake", "bindgen", "pkg-config", "autotools"}


def allowed(expression):
    """Whether an SPDX expression can be met with ALLOWED alone: OR needs one side, AND both; `/` is an old OR."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def either():
        result = both()
        while words and words[0] == "OR":
            words.pop(0)
            result = both() or result
        return result

    def both():
        result = one()
        while words and words[0] == "AND":
            words.pop(0)
            result = one() and result
        return result

    def one():
        name = words.pop(0)
        if name == "(":
            result = either()
            words.pop(0)
            return result
        if words and words[0] == "WITH":
            name = f"{name} WITH {words[1]}"
            del words[:2]
        return name in ALLOWED

    result = either()
    if words:
        raise ValueError(expression)
    return result


def tree(metadata, name):
    """Everything that a build of this package compiles, on any system; without tests, benches and loom."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    todo = [package for package in metadata["workspace_members"] if names[package] == name]
    if not todo:
        sys.exit(f"no package {name} in this workspace")
    seen = set(todo)
    while todo:
        for dependency in nodes[todo.pop()]["deps"]:
            kinds = dependency["dep_kinds"]
            built = any(kind["kind"] in (None, "build") and kind["target"] != "cfg(loom)" for kind in kinds)
            if built and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                todo.append(dependency["pkg"])
    return {names[package] for package in seen}


def main():
    assert allowed("MIT OR GPL-3.0") and not allowed("MIT AND GPL-3.0") and allowed("(MIT/GPL-3.0) AND Zlib")
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    bad = 0
    versions = collections.defaultdict(set)
    for package in metadata["packages"]:
        versions[package["name"]].add(package["version"])
        licence = package["license"]
        if not licence or not allowed(licence):
            print(f"error: {package['name']} {package['version']}: licence {licence!r} is not in ALLOWED of ci/licences.py")
            bad += 1
    library = tree(metadata, "ringmail")
    for name in sorted(library & C_TOOLCHAIN):
        print(f"error: the library's build needs {name}, hence a C toolchain (see `cargo tree -e normal,build -i {name}`)")
        bad += 1
    several = [f"{name} {' and '.join(sorted(of))}" for name, of in sorted(versions.items()) if len(of) > 1]
    print(f"licences: {len(metadata['packages'])} crates, {len(library)} in the library's build; in several versions: "
          f"{', '.join(several) or 'none'}; no advisories looked up")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
