provider "google" {
  project = "my-project"
}

# Checks a private Cloud Run service that speaks gRPC, with an ID token.
module "health" {
  source = "../.."

  project_id = "my-project"
  region     = "europe-west1"
  image      = "europe-west1-docker.pkg.dev/my-project/images/grpc-health-http:v1"
  grpc_addr  = "backend-abc123-ew.a.run.app:443"
  services   = ["echo.EchoServer"]

  settings = {
    GRPC_HEALTH_TLS = true
  }
  id_token = {
    audience = "https://backend-abc123-ew.a.run.app"
    service  = "backend"
  }

  alert_emails = ["oncall@example.com"]
}

output "uri" {
  value = module.health.uri
}
