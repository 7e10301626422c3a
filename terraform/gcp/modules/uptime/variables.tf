# The modules that use this one have checked the values.

variable "project_id" {
  description = "The project that holds the checks."
  type        = string
}

variable "name" {
  description = "What is checked, for the names of the checks and alerts."
  type        = string
}

variable "upstream" {
  description = "The upstream that is checked, for people who read an alert."
  type        = string
}

variable "many" {
  description = "Whether there are many upstreams: the alert on certificates then names the target, and the dashboard has a row for each check."
  type        = bool
  default     = false
}

variable "service" {
  description = "The Cloud Run service whose log is looked at."
  type        = string
}

variable "region" {
  description = "The region of the service."
  type        = string
}

variable "certificate_days" {
  description = "An alert comes where a certificate ends in less than so many days; null has none."
  type        = number
}

variable "host" {
  description = "The host to ask, without a scheme."
  type        = string
}

variable "paths" {
  description = "A path for each check, with its query, by the name of the service, target or group."
  type        = map(string)
}

variable "schedule" {
  description = "How often, for how long (both in seconds), and from where to ask; no regions are all."
  type = object({
    period  = number
    timeout = number
    regions = set(string)
  })
}

variable "alert_emails" {
  description = "Addresses to make notification channels for."
  type        = set(string)
}

variable "notification_channels" {
  description = "Notification channels that exist, by resource name."
  type        = set(string)
}
