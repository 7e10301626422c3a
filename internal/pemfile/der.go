package pemfile

import (
	"crypto/x509"
	"encoding/asn1"
	"slices"
)

// binary says what a content in DER is; empty where it is none.
func binary(content []byte) string {
	const convert = ": convert it to PEM, with openssl "
	var outer asn1.RawValue
	if rest, err := asn1.Unmarshal(content, &outer); err != nil || len(rest) > 0 || outer.Tag != asn1.TagSequence || !outer.IsCompound {
		return ""
	}
	if _, err := x509.ParseCertificate(content); err == nil || Certificate(content) {
		return "it is a certificate in DER" + convert + "x509 -inform der for example"
	}
	if _, err := x509.ParseCertificateRequest(content); err == nil {
		return "it is a certificate signing request, in DER"
	}
	if _, err := x509.ParseRevocationList(content); err == nil {
		return "it is a certificate revocation list, in DER"
	}
	var first struct {
		Type asn1.ObjectIdentifier
		Rest asn1.RawValue `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(content, &first); err == nil && first.Type.Equal(signedData) {
		return "it is a PKCS #7 bundle in DER" + convert + "pkcs7 -inform der -print_certs for example"
	}
	var version int
	if rest, err := asn1.Unmarshal(outer.Bytes, &version); err == nil {
		var second asn1.RawValue
		if _, err := asn1.Unmarshal(rest, &second); err == nil {
			switch {
			case version == 3:
				return "it is a PKCS #12 file" + convert + "pkcs12 for example"
			case version <= 1:
				return "it is a private key in DER" + convert + "pkey -inform der for example"
			}
		}
	}
	return ""
}

// signedData is the type of a PKCS #7 bundle (RFC 2315, section 14).
var signedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}

// certificate has the fields of a certificate that decide whether it is whole (RFC 5280, section 4.1).
type certificate struct {
	TBS struct {
		Version   int `asn1:"optional,explicit,default:0,tag:0"`
		Serial    asn1.RawValue
		Algorithm asn1.RawValue
		Issuer    asn1.RawValue
		Validity  asn1.RawValue
		Subject   asn1.RawValue
		Key       publicKey
		IssuerID  asn1.BitString  `asn1:"optional,tag:1"`
		SubjectID asn1.BitString  `asn1:"optional,tag:2"`
		Rest      []asn1.RawValue `asn1:"optional,explicit,tag:3"`
	}
	Algorithm asn1.RawValue
	Signature asn1.BitString
}

// Certificate says whether DER is a whole certificate, though crypto/x509 may not accept it.
func Certificate(der []byte) bool {
	var c certificate
	rest, err := asn1.Unmarshal(der, &c)
	return err == nil && len(rest) == 0
}

// Refusal says why crypto/x509 does not accept a certificate that is whole, or whose key is of no use in TLS: its serial number, or its key. It
// is empty where neither is the reason.
func Refusal(der []byte) string {
	var c certificate
	if _, err := asn1.Unmarshal(der, &c); err != nil {
		return ""
	}
	if serial := c.TBS.Serial; serial.Tag == asn1.TagInteger && len(serial.Bytes) > 0 && serial.Bytes[0]&0x80 != 0 {
		return "it has a negative serial number, which Go does not accept"
	}
	return c.TBS.Key.Algorithm.refusal()
}

// algorithm says of which type a key is (RFC 5280, section 4.1.1.2).
type algorithm struct {
	Type       asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

type publicKey struct {
	Algorithm algorithm
	Key       asn1.BitString
}

// ecKey is the type of keys on a curve, which the parameters name (RFC 5480, section 2.1.1).
var ecKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}

// The types of keys, and the curves, that crypto/tls supports; empty text is for these.
var (
	keyTypes = map[string]string{
		"1.2.840.113549.1.1.1":    "",
		"1.3.101.112":             "", // Ed25519
		"1.2.840.113549.1.1.10":   "RSA-PSS",
		"1.2.840.113549.1.1.7":    "RSAES-OAEP",
		"1.3.101.113":             "Ed448",
		"1.3.101.110":             "X25519",
		"1.3.101.111":             "X448",
		"1.2.840.10040.4.1":       "DSA",
		"1.2.840.113549.1.3.1":    "Diffie-Hellman",
		"1.2.840.10046.2.1":       "Diffie-Hellman",
		"2.16.840.1.101.3.4.3.17": "ML-DSA-44",
		"2.16.840.1.101.3.4.3.18": "ML-DSA-65",
		"2.16.840.1.101.3.4.3.19": "ML-DSA-87",
		"1.2.643.7.1.1.1.1":       "GOST R 34.10-2012",
		"1.2.643.7.1.1.1.2":       "GOST R 34.10-2012",
	}
	curves = map[string]string{
		"1.3.132.0.33":          "", // P-224
		"1.2.840.10045.3.1.7":   "", // P-256
		"1.3.132.0.34":          "", // P-384
		"1.3.132.0.35":          "", // P-521
		"1.3.132.0.10":          "secp256k1",
		"1.2.840.10045.3.1.1":   "P-192",
		"1.3.36.3.3.2.8.1.1.7":  "brainpoolP256r1",
		"1.3.36.3.3.2.8.1.1.8":  "brainpoolP256t1",
		"1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
		"1.3.36.3.3.2.8.1.1.12": "brainpoolP384t1",
		"1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
		"1.3.36.3.3.2.8.1.1.14": "brainpoolP512t1",
		"1.2.156.10197.1.301":   "SM2",
	}
)

const notSupported = ", which Go's TLS does not support"

// refusal says why crypto/tls does not support keys of this type; empty where it does.
func (a algorithm) refusal() string {
	if a.Type.Equal(ecKey) {
		return curveRefusal(a.Parameters.FullBytes)
	}
	if name, known := keyTypes[a.Type.String()]; !known {
		return "its key is of the type with the object identifier " + a.Type.String() + notSupported
	} else if name != "" {
		return "its key is of the type " + name + notSupported
	}
	return ""
}

// curveRefusal is refusal for a key on a curve.
func curveRefusal(parameters []byte) string {
	var curve asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(parameters, &curve); err != nil {
		return "its key describes its curve by parameters, and not by a name" + notSupported
	}
	if name, known := curves[curve.String()]; !known {
		return "its key is on the curve with the object identifier " + curve.String() + notSupported
	} else if name != "" {
		return "its key is on the curve " + name + notSupported
	}
	return ""
}

// KeyRefusal says why crypto/tls cannot use a private key: its type or its curve. It is empty where neither is the reason.
func KeyRefusal(der []byte) string {
	var pkcs8 struct { // RFC 5958, section 2
		Version   int
		Algorithm algorithm
		Key       []byte
		Rest      []asn1.RawValue `asn1:"optional,tag:0"`
		Public    asn1.RawValue   `asn1:"optional,tag:1"`
	}
	if _, err := asn1.Unmarshal(der, &pkcs8); err == nil {
		return pkcs8.Algorithm.refusal()
	}
	var sec1 struct { // RFC 5915, section 3
		Version int
		Key     []byte
		Curve   asn1.RawValue  `asn1:"optional,explicit,tag:0"`
		Public  asn1.BitString `asn1:"optional,explicit,tag:1"`
	}
	if _, err := asn1.Unmarshal(der, &sec1); err == nil {
		if len(sec1.Curve.Bytes) == 0 {
			return "it does not say on which curve it is"
		}
		return curveRefusal(sec1.Curve.Bytes)
	}
	var numbers []asn1.RawValue
	if _, err := asn1.Unmarshal(der, &numbers); err == nil && len(numbers) == 6 { // those of DSA; RSA has 9 or more
		return "its key is of the type DSA" + notSupported
	}
	return ""
}

// The usages that trust data name (RFC 5280, section 4.2.1.12).
var (
	ServerAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	ClientAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	anyUsage   = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
)

// Trusted takes OpenSSL's TRUSTED CERTIFICATE apart: a certificate, and behind it data that say for what it is trusted (openssl-x509(1),
// Trust Options). allows says whether these allow a usage. ok is false where the content is something else.
func Trusted(content []byte) (der []byte, allows func(usage asn1.ObjectIdentifier) bool, ok bool) {
	var c asn1.RawValue
	data, err := asn1.Unmarshal(content, &c)
	if err != nil {
		return nil, nil, false
	}
	var trust struct {
		For     []asn1.ObjectIdentifier `asn1:"optional"`
		Against []asn1.ObjectIdentifier `asn1:"optional,tag:0"`
	}
	if len(data) > 0 {
		if rest, err := asn1.Unmarshal(data, &trust); err != nil || len(rest) > 0 {
			return nil, nil, false
		}
	}
	return c.FullBytes, func(usage asn1.ObjectIdentifier) bool {
		names := func(o asn1.ObjectIdentifier) bool { return o.Equal(usage) || o.Equal(anyUsage) }
		return !slices.ContainsFunc(trust.Against, names) && (trust.For == nil || slices.ContainsFunc(trust.For, names))
	}, true
}
