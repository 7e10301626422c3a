// Package addresses checks each address behind an upstream's name on a connection of its own, and makes one verdict of what it finds.
//
// It is a floor above package check: every address has a check.Checker, for which the name has that address alone. So a check of an address is
// what any check is, with the name for TLS and :authority. The name is looked up for each check, after the request has arrived; checks that run
// at the same time share the questions. An address that is new gets its Checker then, and one that the name has no longer loses it, with its connection, when a
// kept connection would be too old.
package addresses
