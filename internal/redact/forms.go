package redact

import (
	"encoding/base64"
	"net/url"
	"strings"
)

var encodings = []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding}

// written are the forms in which a secret is sent, or in which somebody who got it can write it; views read the escapes in what they
// write.
func written(secret string) []string {
	all := []string{
		secret, strings.TrimSpace(secret),
		// What is not UTF-8 becomes a replacement character, one for each byte or one for all.
		strings.ToValidUTF8(secret, "\ufffd"), string([]rune(secret)),
		strings.ReplaceAll(secret, " ", "+"), // as in a query
	}
	for _, e := range encodings {
		all = append(all, e.EncodeToString([]byte(secret)), e.EncodeToString([]byte(strings.TrimSpace(secret))))
	}
	return all
}

// schemes are words with which the value of a header begins that has credentials behind them, in lower case.
var schemes = []string{"apikey", "basic", "bearer", "digest", "key", "negotiate", "signature", "token"}

// Header returns the secrets in the value of a header, or of gRPC metadata: the value itself; what stands behind the scheme
// in "Bearer TOKEN"; the pair of Basic, and its password; the values of cookies.
func Header(name, value string) []string {
	all := []string{value}
	name = strings.ToLower(name)
	words := strings.Fields(value)
	if len(words) >= 2 {
		scheme := strings.ToLower(words[0])
		known := strings.Contains(name, "auth")
		for _, s := range schemes {
			known = known || s == scheme
		}
		if known || len(words) == 2 {
			_, rest, _ := strings.Cut(strings.TrimSpace(value), words[0])
			all = append(all, strings.TrimSpace(rest), words[len(words)-1])
		}
		if scheme == "basic" {
			for _, e := range encodings {
				if pair, err := e.DecodeString(words[1]); err == nil {
					_, password, _ := strings.Cut(string(pair), ":")
					all = append(all, string(pair), password)
				}
			}
		}
	}
	if name == "cookie" {
		for cookie := range strings.SplitSeq(value, ";") {
			_, content, _ := strings.Cut(cookie, "=")
			all = append(all, strings.TrimSpace(cookie), strings.TrimSpace(content))
		}
	}
	return all
}

// Userinfo returns the secrets in the user and password of a URL, which it may hold as they are or percent-encoded: as written, and
// decoded. It is what stands before the @.
func Userinfo(text string) []string {
	user, password, _ := strings.Cut(text, ":")
	all := []string{text, user, password}
	for _, part := range []string{user, password} {
		if decoded, err := url.PathUnescape(part); err == nil {
			all = append(all, decoded)
		}
	}
	if u, err := url.PathUnescape(user); err == nil {
		if p, err := url.PathUnescape(password); err == nil {
			all = append(all, u+":"+p)
		}
	}
	return all
}
