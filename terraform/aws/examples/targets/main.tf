provider "aws" {
  region = "eu-central-1"
}

# Checks many servers in a VPC each minute, in one invocation. A group rings once, whichever of its servers it is about.
module "health" {
  source = "../.."

  name    = "fleet-health"
  package = var.package

  target_defaults = {
    tls     = true
    ca_cert = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:backend-ca-AbCdEf"
  }
  targets = {
    checkout = { addr = "checkout.internal:443", group = "payments", service_name = ["checkout.v1.Checkout", "checkout.v1.Refunds"] }
    ledger = {
      addr        = "ledger.internal:443"
      group       = "payments"
      rpc_headers = { authorization = "@arn:aws:secretsmanager:eu-central-1:123456789012:secret:ledger-AbCdEf" }
    }
    search = { addr = "search.internal:50051", tls = false }
  }
  checks          = "group"
  connect_timeout = 2 # a first check fetches the secrets

  vpc = {
    subnet_ids         = ["subnet-0123456789abcdef0", "subnet-0fedcba9876543210"]
    security_group_ids = ["sg-0123456789abcdef0"]
  }
  alert_emails = ["oncall@example.com"]
}

variable "package" {
  description = "What go run ./lambda/zip has made."
  type        = string
  default     = "grpc-health-lambda-arm64.zip"
}

output "function_name" {
  value = module.health.function_name
}
