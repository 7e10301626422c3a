// Package dial makes one connection to a target: credentials, lookup, and then for each address TCP (or a unix socket, or a
// proxy's tunnel), TLS, and the server's HTTP/2 SETTINGS.
//
// Dial looks the target up and races its addresses: each gets a head start of 250 ms, less where the budget is short, and the
// first usable connection wins. The address families are asked for apart, and each again while nobody answers; the race does not
// wait for both (RFC 8305, section 3). It ends within ConnectTimeout. Where TLS failed and reading the credentials again brings new
// ones, the addresses on which it failed are tried once more, in the same race. Nothing is inherited from earlier dials.
//
// A failed dial says in which phase it ended, and why, by the address that came furthest. The first bytes that the server sent
// tell what protocol it uses, where that is not HTTP/2. A Progress shows a dial to those who cannot wait for its end.
//
// How the network is reached is injected: Options.Lookup and Options.Connect.
package dial
