package secrets

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"example.com/grpc-health-http/internal/atmost"
)

// newClient makes a client from the variables that Lambda sets. The SDK's config package would do so too,
// and brings clients for sign-on services along that no Lambda function needs.
func newClient() *secretsmanager.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// A connection kept for the next fetch, minutes later, would be dead by then without saying so.
	transport.DisableKeepAlives = true
	transport.MaxResponseHeaderBytes = mostOfHeaders
	client := &http.Client{
		Transport:     atmost.Answers(ownBody{transport}, mostOfAnswer),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	o := secretsmanager.Options{
		Region:      os.Getenv("AWS_REGION"),
		Credentials: aws.NewCredentialsCache(provider(client)),
		HTTPClient:  client,
		Retryer:     aws.NopRetryer{}, // the next read tries again
	}
	// https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
	if endpoint := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_SECRETS_MANAGER"), os.Getenv("AWS_ENDPOINT_URL")); endpoint != "" {
		o.BaseEndpoint = &endpoint
	}
	return secretsmanager.New(o)
}

// ownBody gives each request a body that nobody else closes. The SDK closes its own as soon as the answer's headers are there
// (smithy-go, transport/http/client.go); on a busy machine net/http may still be reading it then, takes that for a failure of the
// request, and closes the connection with the rest of the answer on it.
type ownBody struct{ http.RoundTripper }

func (o ownBody) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return o.RoundTripper.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body) // it names a secret
	_ = r.Body.Close()              // it has been read
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return o.RoundTripper.RoundTrip(r)
}

// provider gives the credentials of the function's role: from the variables that Lambda sets, or, where it
// sets those instead, from an endpoint
// (https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html).
func provider(client *http.Client) aws.CredentialsProvider {
	var endpoint *endpointcreds.Provider
	if uri := os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI"); uri != "" && os.Getenv("AWS_ACCESS_KEY_ID") == "" {
		endpoint = endpointcreds.New(uri, func(o *endpointcreds.Options) {
			o.HTTPClient, o.Retryer = client, aws.NopRetryer{}
			o.AuthorizationTokenProvider = endpointcreds.TokenProviderFunc(containerToken)
		})
	}
	return aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		if endpoint != nil {
			c, err := endpoint.Retrieve(ctx)
			if _, long := errors.AsType[*atmost.TooLong](err); long {
				return c, errLongCredentials
			}
			if err != nil {
				return c, errNoEndpointCredentials // the cause could quote the endpoint's answer
			}
			return c, nil
		}
		c := aws.Credentials{
			AccessKeyID:     os.Getenv("AWS_ACCESS_KEY_ID"),
			SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"),
			SessionToken:    os.Getenv("AWS_SESSION_TOKEN"),
		}
		if !c.HasKeys() {
			return c, errNoCredentials
		}
		return c, nil
	})
}

// containerToken is what the endpoint wants to see; the file's content changes.
func containerToken() (string, error) {
	if path := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); path != "" {
		token, err := atmost.File(path)
		return strings.TrimSpace(string(token)), err
	}
	return os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN"), nil
}

var (
	errNoCredentials         = errors.New("no AWS credentials in the environment: give the function a role")
	errNoEndpointCredentials = errors.New("no AWS credentials from AWS_CONTAINER_CREDENTIALS_FULL_URI")
	errLongCredentials       = fmt.Errorf("the answer of AWS_CONTAINER_CREDENTIALS_FULL_URI is no AWS credentials: %w", &atmost.TooLong{Limit: mostOfAnswer})
)

// fetch gets a secret's current version, from the region that its ARN names.
func fetch(ctx context.Context, client *secretsmanager.Client, id string) ([]byte, error) {
	name, err := arn.Parse(id)
	if err != nil || name.Service != "secretsmanager" || name.Region == "" || !strings.HasPrefix(name.Resource, "secret:") {
		return nil, errors.New("not the ARN of a secret: write arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME")
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	output, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &id},
		func(o *secretsmanager.Options) { o.Region = name.Region })
	switch {
	case err != nil:
		return nil, explain(ctx, err)
	case output.SecretString != nil:
		return []byte(*output.SecretString), nil
	default:
		return output.SecretBinary, nil
	}
}

// remedies are what to do about the errors of GetSecretValue
// (https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html).
var remedies = map[string]string{
	"ResourceNotFoundException": "there is no such secret: check the ARN, its region included",
	"AccessDeniedException": "give the function's role secretsmanager:GetSecretValue on the secret, " +
		"and kms:Decrypt on its key where that is not aws/secretsmanager",
	"DecryptionFailure":           "give the function's role kms:Decrypt on the secret's key, and enable the key",
	"InvalidRequestException":     "the secret may be marked for deletion",
	"UnrecognizedClientException": "the credentials of the function's role are not valid",
	"ExpiredTokenException":       "the credentials of the function's role have expired",
}

// lost are the errors that mean that the secret is gone, or that the function may not read it. Others, such as credentials that have
// expired, say nothing about the secret.
var lost = map[string]error{
	"ResourceNotFoundException": fs.ErrNotExist,
	"InvalidRequestException":   fs.ErrNotExist, // marked for deletion
	"AccessDeniedException":     fs.ErrPermission,
	"DecryptionFailure":         fs.ErrPermission, // the key is disabled
}

// explain says what went wrong, with nothing that could hold content.
func explain(ctx context.Context, err error) error {
	if refused, ok := errors.AsType[smithy.APIError](err); ok {
		code := refused.ErrorCode()
		text := "AWS Secrets Manager says " + code
		if remedy := remedies[code]; remedy != "" {
			text += ": " + remedy
		}
		if kind := lost[code]; kind != nil {
			return &goneError{text, kind}
		}
		return errors.New(text)
	}
	for _, known := range []error{errNoCredentials, errNoEndpointCredentials, errLongCredentials} {
		if errors.Is(err, known) {
			return known
		}
	}
	if long, ok := errors.AsType[*atmost.TooLong](err); ok {
		return fmt.Errorf("the answer of AWS Secrets Manager is no secret: %w", long)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("AWS Secrets Manager did not answer within %v: can the function reach it from its VPC?", fetchTimeout)
	}
	if unsent, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return fmt.Errorf("AWS Secrets Manager does not answer: %w", unsent.Err)
	}
	return errors.New("the answer of AWS Secrets Manager is not understood")
}
