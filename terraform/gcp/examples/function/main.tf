provider "google" {
  project = "my-project"
}

# Checks two services of a server in a VPC network, over TLS with a client certificate.
module "health" {
  source = "../.."

  project_id = "my-project"
  region     = "europe-west1"
  name       = "backend-health"
  grpc_addr  = "backend.internal.example.com:443"
  services   = ["echo.EchoServer", "quiz.QuizServer"]

  settings = {
    GRPC_HEALTH_TLS = true
  }
  secrets = {
    GRPC_HEALTH_CA_CERT     = { secret = "backend-ca" }
    GRPC_HEALTH_CLIENT_CERT = { secret = "health-cert" }
    GRPC_HEALTH_CLIENT_KEY  = { secret = "health-key" }
  }
  vpc = {
    network    = "backend"
    subnetwork = "serverless"
  }

  uptime_check = {
    regions = ["EUROPE", "USA"]
  }
  alert_emails = ["oncall@example.com"]
}

output "uri" {
  value = module.health.uri
}
