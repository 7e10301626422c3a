# The module that uses this one has checked the values.

variable "project_id" {
  description = "The project to deploy to."
  type        = string
}

variable "project_number" {
  description = "The number of that project."
  type        = string
}

variable "region" {
  description = "The Cloud Run service's region."
  type        = string
}

variable "name" {
  description = "The load balancer's name."
  type        = string
}

variable "service" {
  description = "The Cloud Run service's name."
  type        = string
}

variable "domain" {
  description = "The domain that the load balancer answers for, and has a certificate for."
  type        = string
}

variable "client_cas" {
  description = "The CA certificates that client certificates must come from, PEM."
  type        = list(string)
}
