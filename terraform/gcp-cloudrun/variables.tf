variable "image" {
  description = "The image of the project's Dockerfile, in Artifact Registry, with a tag or a digest."
  type        = string

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9_.-]*|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "image: write a tag or a digest, such as europe-west1-docker.pkg.dev/project/repository/grpc-health-http:v1."
  }
}

variable "path" {
  description = "The path that answers."
  type        = string
  default     = "/"

  validation {
    # https://cloud.google.com/run/docs/known-issues
    condition     = !endswith(var.path, "z")
    error_message = "path: Cloud Run keeps paths that end in z for itself: write another, such as /health."
  }

  validation {
    condition     = can(regex("^/[^?#\\s]*$", var.path)) && var.path != "/livez"
    error_message = "path: write a path such as /health, without a query; /livez is taken."
  }
}

variable "concurrency" {
  description = "The most requests at once in one instance."
  type        = number
  default     = 80

  validation {
    condition     = var.concurrency >= 1 && var.concurrency <= 1000
    error_message = "concurrency: write 1 to 1000."
  }
}

variable "min_instances" {
  description = "Instances that are kept when nobody asks; 0 costs least, 1 spares cold starts."
  type        = number
  default     = 0

  validation {
    condition     = var.min_instances >= 0 && var.min_instances <= var.max_instances
    error_message = "min_instances: write 0 up to max_instances."
  }
}

variable "max_instances" {
  description = "The most instances at once."
  type        = number
  default     = 3

  validation {
    condition     = var.max_instances >= 1
    error_message = "max_instances: write 1 or more."
  }
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete the service."
  type        = bool
  default     = true
}

variable "metrics_sidecar" {
  description = "Scrape the metrics with Managed Service for Prometheus. CPU is then billed as long as an instance lives, not for requests only."
  type        = bool
  default     = false
}

variable "load_balancer" {
  description = "An external Application Load Balancer for this domain that wants client certificates of these CAs (PEM). IAM still decides whom the service answers; through the load balancer the ID token's audience is https://DOMAIN."
  type = object({
    domain     = string
    client_cas = list(string)
  })
  default = null

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", try(var.load_balancer.domain, "example.com")))
    error_message = "load_balancer: write the domain alone, such as health.example.com."
  }

  validation {
    condition     = alltrue([for pem in try(var.load_balancer.client_cas, []) : startswith(pem, "-----BEGIN CERTIFICATE-----")]) && try(length(var.load_balancer.client_cas), 1) > 0
    error_message = "load_balancer: write at least one CA certificate as PEM text, such as file(\"ca.pem\"), one certificate each."
  }
}
