provider "aws" {
  region = "eu-central-1"
}

# Checks a server in a VPC each minute, with nothing public: an alarm tells when it does not serve, or nobody asks.
module "health" {
  source = "../.."

  name      = "backend-health"
  package   = var.package
  grpc_addr = "backend.internal.example.com:443"
  services  = ["echo.EchoServer"]

  settings = {
    GRPC_HEALTH_TLS = true
  }
  secrets = {
    GRPC_HEALTH_CA_CERT = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:backend-ca-AbCdEf"
  }
  connect_timeout = 2 # a first check fetches the secret

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
