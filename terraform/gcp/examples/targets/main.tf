provider "google" {
  project = "my-project"
}

# Checks many servers in a VPC network each minute, all side by side, from one place. The log tells which does not serve.
module "health" {
  source = "../.."

  project_id = "my-project"
  region     = "europe-west1"
  image      = "europe-west1-docker.pkg.dev/my-project/images/grpc-health-http:v1"
  name       = "fleet-health"

  target_defaults = {
    tls     = true
    ca_cert = "/secrets/backend-ca/value"
  }
  targets = {
    checkout = { addr = "checkout.internal:443", group = "payments", service_name = ["checkout.v1.Checkout", "checkout.v1.Refunds"] }
    ledger   = { addr = "ledger.internal:443", group = "payments", rpc_headers = { authorization = "@/secrets/ledger/value" } }
    search   = { addr = "search.internal:50051", tls = false }
  }
  secrets = {
    backend-ca = { secret = "backend-ca" }
    ledger     = { secret = "ledger-authorization" }
  }
  vpc = {
    network    = "backend"
    subnetwork = "serverless"
  }

  uptime_check     = null
  schedule_minutes = 1
  alert_emails     = ["oncall@example.com"]
}

output "uri" {
  value = module.health.uri
}
