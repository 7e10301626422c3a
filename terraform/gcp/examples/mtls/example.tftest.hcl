mock_provider "google" {
  source = "../../../mocks/google"
}

variables {
  partner_ca = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
}

run "example" {
  assert {
    condition     = output.dns_record == "health.example.com A 203.0.113.1"
    error_message = "The example says which DNS record to make."
  }
}
