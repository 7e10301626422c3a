package redact

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
)

var encodings = []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding}

// written are the forms in which a secret is sent, or in which somebody who got it can write it.
func written(secret string) []string {
	plain := []string{
		secret, strings.TrimSpace(secret),
		// What is not UTF-8 becomes a replacement character, one for each byte or one for all.
		strings.ToValidUTF8(secret, "\ufffd"), string([]rune(secret)),
	}
	for _, e := range encodings {
		plain = append(plain, e.EncodeToString([]byte(secret)), e.EncodeToString([]byte(strings.TrimSpace(secret))))
	}
	var all []string
	for _, p := range plain {
		quoted := inQuotes(strconv.Quote(p))
		ascii := inQuotes(strconv.QuoteToASCII(p))
		all = append(all, p, quoted, inQuotes(strconv.Quote(quoted)), ascii, inQuotes(strconv.QuoteToASCII(ascii)),
			inJSON(p, true), inJSON(p, false), inQuotes(strconv.Quote(inJSON(p, false))), strings.ReplaceAll(inJSON(p, false), "/", `\/`),
			url.QueryEscape(p), url.PathEscape(p), inUserinfo(p), percent(p))
	}
	for _, text := range all {
		all = append(all, lowerEscapes(text))
	}
	return all
}

func inQuotes(quoted string) string { return quoted[1 : len(quoted)-1] }

// inJSON is the text inside a JSON string; html escapes what has a meaning in HTML, too.
func inJSON(text string, html bool) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	if e.Encode(text) != nil {
		return text // cannot happen: every string has a JSON form
	}
	return inQuotes(strings.TrimSuffix(b.String(), "\n"))
}

// inUserinfo is the text as the password in a URL.
func inUserinfo(text string) string {
	return strings.TrimPrefix(url.UserPassword("", text).String(), ":")
}

// percent is the text with everything escaped but letters, digits and - . _ ~ (RFC 3986, section 2.3).
func percent(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// lowerEscapes is the text with the letters of its percent escapes in lower case.
func lowerEscapes(text string) string {
	b := []byte(text)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], strings.ToLower(text[i+1:i+3]))
		}
	}
	return string(b)
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
