provider "aws" {
  region = "eu-central-1"
}

# Checks a public server from three parts of the world, for an alarm and for DNS failover.
module "health" {
  source = "../.."

  package   = var.package
  grpc_addr = "grpc.example.com:443"
  services  = ["echo.EchoServer"]

  settings = {
    GRPC_HEALTH_TLS = true
  }

  function_url     = "NONE"
  schedule_minutes = null # the health checks ask often enough
  route53 = {
    regions = ["eu-west-1", "us-east-1", "ap-southeast-1"]
  }
  alert_emails = ["oncall@example.com"]
}

variable "package" {
  description = "What go run ./lambda/zip has made."
  type        = string
  default     = "grpc-health-lambda-arm64.zip"
}

output "health_check_id" {
  description = "For records of Route 53 that fail over."
  value       = module.health.health_check_ids["echo.EchoServer"]
}
