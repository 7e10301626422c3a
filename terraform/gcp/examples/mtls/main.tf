provider "google" {
  project = "my-project"
}

# Answers partners on a domain of its own: with a client certificate of theirs, and an ID token for the domain.
module "health" {
  source = "../.."

  project_id = "my-project"
  region     = "europe-west1"
  image      = "europe-west1-docker.pkg.dev/my-project/images/grpc-health-http:v1"
  grpc_addr  = "grpc.example.com:443"
  services   = ["echo.EchoServer"]
  path       = "/health"

  settings = {
    GRPC_HEALTH_TLS = true
  }
  invokers = ["serviceAccount:monitor@partner-project.iam.gserviceaccount.com"]

  load_balancer = {
    domain     = "health.example.com"
    client_cas = [var.partner_ca]
  }
  metrics_sidecar = true
  min_instances   = 1
}

variable "partner_ca" {
  description = "The partner's CA certificate, PEM."
  type        = string
}

output "dns_record" {
  value = "health.example.com A ${module.health.load_balancer_ip}"
}
