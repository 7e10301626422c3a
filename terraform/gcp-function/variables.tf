variable "source_dir" {
  description = "The repository's directory, with go.mod; what its .gcloudignore names is not uploaded. By default the one that this module is in."
  type        = string
  default     = null

  validation {
    condition     = fileexists("${coalesce(var.source_dir, "${path.module}/../..")}/.gcloudignore")
    error_message = "source_dir: no .gcloudignore there: write the directory of the repository, with go.mod and function.go."
  }
}

variable "build_service_account" {
  description = "The service account that builds the function, as projects/PROJECT/serviceAccounts/EMAIL; by default the project's default one."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^projects/[^/]+/serviceAccounts/[^/]+@[^/]+$", coalesce(var.build_service_account, "projects/p/serviceAccounts/a@b")))
    error_message = "build_service_account: write projects/PROJECT/serviceAccounts/EMAIL."
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
