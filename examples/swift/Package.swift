// swift-tools-version: 6.0
// SPDX-License-Identifier: Apache-2.0
//
// Trains with an installed libmest, which pkg-config finds:
//
//   gzip -dc ../data/digits.csv.gz | swift run -c release digits
//
// docs/swift.md tells the other ways to depend on libmest.
import PackageDescription

let package = Package(
    name: "digits",
    targets: [
        .systemLibrary(name: "CMest", pkgConfig: "mest", providers: [.apt(["libmest-dev"])]),
        .executableTarget(name: "digits", dependencies: ["CMest"]),
    ]
)
