variable "name" {
  description = "The service's name; the load balancer, its target group, the security groups, the role and the log group are named after it. Two deployments in one region differ in it."
  type        = string
  default     = "grpc-server"

  validation {
    # The names of a load balancer and of a target group have 32 characters at most.
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", var.name)) && !startswith(var.name, "internal-")
    error_message = "name: write up to 32 lower-case letters, digits and hyphens, without a hyphen at either end, and not beginning with internal-."
  }
}

variable "server_image" {
  description = "The image of the gRPC server."
  type        = string

  validation {
    condition     = can(regex("^[^\\s:/]+[^\\s]*[:@][^\\s/]+$", var.server_image))
    error_message = "server_image: write the image with its tag or digest, such as 123456789012.dkr.ecr.eu-central-1.amazonaws.com/echo:v1.0.0."
  }
}

variable "proxy_image" {
  description = "The image of this project."
  type        = string

  validation {
    condition     = can(regex("^[^\\s:/]+[^\\s]*[:@][^\\s/]+$", var.proxy_image))
    error_message = "proxy_image: write the image with its tag or digest, such as ghcr.io/owner/repository:v0.1.0."
  }
}

variable "repository_arns" {
  description = "The ECR repositories of the images, for those that are in ECR."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.repository_arns : can(regex("^arn:aws[a-z-]*:ecr:[a-z0-9-]+:[0-9]{12}:repository/[^\\s*]+$", arn))])
    error_message = "repository_arns: write each repository's whole ARN, arn:aws:ecr:REGION:ACCOUNT:repository/NAME."
  }
}

variable "grpc_port" {
  description = "The port of the gRPC server, which gets the traffic."
  type        = number
  default     = 50051

  validation {
    condition     = var.grpc_port >= 1 && var.grpc_port <= 65535 && floor(var.grpc_port) == var.grpc_port
    error_message = "grpc_port: write a port from 1 to 65535."
  }
}

variable "health_port" {
  description = "The port of the proxy, which the health checks ask."
  type        = number
  default     = 8080

  validation {
    condition     = var.health_port >= 1 && var.health_port <= 65535 && floor(var.health_port) == var.health_port
    error_message = "health_port: write a port from 1 to 65535."
  }

  validation {
    condition     = !contains([var.grpc_port, local.metrics_port], var.health_port)
    error_message = "health_port: the containers of a task share their ports, and ${var.health_port} is taken: ${local.metrics_port} is the proxy's metrics, ${var.grpc_port} the server."
  }
}

variable "services" {
  description = "The services to check; none is the whole server. All of them have to serve."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for service in var.services : can(regex("^[!-+\\x2d-~]{1,255}$", service))])
    error_message = "services: write each service's name by itself, up to 255 printable ASCII characters, without commas and spaces."
  }
}

variable "connect_timeout" {
  description = "The budget for a connection, in seconds: TCP, TLS, and the server's HTTP/2 SETTINGS."
  type        = number
  default     = 1

  validation {
    condition     = var.connect_timeout > 0
    error_message = "connect_timeout: write seconds above 0, such as 0.5."
  }
}

variable "rpc_timeout" {
  description = "The budget for the RPC, in seconds."
  type        = number
  default     = 1

  validation {
    condition     = var.rpc_timeout > 0
    error_message = "rpc_timeout: write seconds above 0, such as 0.8."
  }
}

variable "health_check" {
  description = "How the load balancer checks: seconds between two checks and for an answer, and how many in a row change a target's health."
  type = object({
    interval            = optional(number, 10)
    timeout             = optional(number, 5)
    healthy_threshold   = optional(number, 2)
    unhealthy_threshold = optional(number, 2)
  })
  default = {}

  # https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateTargetGroup.html
  validation {
    condition     = var.health_check.interval >= 5 && var.health_check.interval <= 300 && var.health_check.timeout >= 2 && var.health_check.timeout <= 120 && var.health_check.timeout < var.health_check.interval
    error_message = "health_check: write an interval of 5 to 300 seconds, and a timeout of 2 to 120 seconds that is shorter."
  }

  validation {
    condition     = alltrue([for n in [var.health_check.healthy_threshold, var.health_check.unhealthy_threshold] : n >= 2 && n <= 10 && floor(n) == n])
    error_message = "health_check: write thresholds from 2 to 10."
  }

  validation {
    condition     = var.health_check.timeout > var.connect_timeout + var.rpc_timeout
    error_message = "health_check: the proxy answers within connect_timeout and rpc_timeout, ${var.connect_timeout + var.rpc_timeout} s: write a timeout above that, so that its answer counts and not the missing one."
  }
}

variable "settings" {
  description = "Further settings of the proxy, by the full names of their environment variables. With GRPC_HEALTH_TLS the load balancer speaks TLS to the server, too."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : startswith(name, "GRPC_HEALTH_")])
    error_message = "settings: every name begins with GRPC_HEALTH_: write ${join(", ", [for name in keys(var.settings) : "GRPC_HEALTH_${trimprefix(name, "GRPC_")} instead of ${name}" if !startswith(name, "GRPC_HEALTH_")])}."
  }

  validation {
    condition     = length(setintersection(keys(var.settings), keys(local.variable_for))) == 0
    error_message = "settings: other variables set these: write ${join(", ", [for name in keys(var.settings) : "${local.variable_for[name]} instead of ${name}" if contains(keys(local.variable_for), name)])}."
  }

  validation {
    condition     = length(setsubtract([for name in keys(var.settings) : name if startswith(name, "GRPC_HEALTH_")], local.known_settings)) == 0
    error_message = "settings: ${join(", ", setsubtract([for name in keys(var.settings) : name if startswith(name, "GRPC_HEALTH_")], local.known_settings))} cannot be set here: the program has no such setting, or a task behind a load balancer has no use for it. These can be set: ${join(", ", local.other_settings)}."
  }

  validation {
    condition = contains(["1", "t", "true"], lower(trimspace(coalesce(lookup(var.settings, "GRPC_HEALTH_TLS", null), "false")))) || (
      length(setintersection(keys(var.secrets), ["GRPC_HEALTH_CA_CERT", "GRPC_HEALTH_CLIENT_CERT", "GRPC_HEALTH_CLIENT_KEY"])) == 0 &&
      length(setintersection([for name, value in var.settings : name if value != null && value != ""], ["GRPC_HEALTH_SNI_SERVER_NAME", "GRPC_HEALTH_TLS_NO_VERIFY"])) == 0
    )
    error_message = "settings: certificates and a server name mean nothing without TLS: write GRPC_HEALTH_TLS = true as well."
  }
}

variable "secrets" {
  description = "Secrets of Secrets Manager for the proxy, by the setting whose text they hold (GRPC_HEALTH_CA_CERT, GRPC_HEALTH_CLIENT_CERT, GRPC_HEALTH_CLIENT_KEY, GRPC_HEALTH_RPC_HEADERS): the whole ARN, and #KEY behind it for one key of a JSON secret."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.secrets) : contains(local.secret_settings, name)])
    error_message = "secrets: ${join(", ", setsubtract(keys(var.secrets), local.secret_settings))} cannot be a secret here. Those that can are ${join(", ", local.secret_settings)}."
  }

  validation {
    condition     = contains(keys(var.secrets), "GRPC_HEALTH_CLIENT_CERT") == contains(keys(var.secrets), "GRPC_HEALTH_CLIENT_KEY")
    error_message = "secrets: a client certificate and its key mean nothing without each other: write GRPC_HEALTH_CLIENT_CERT and GRPC_HEALTH_CLIENT_KEY, or neither."
  }

  validation {
    # The role may read these ARNs, so they have to be whole.
    condition = alltrue([for arn in values(var.secrets) :
      can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}(#.+)?$", arn))
    ])
    error_message = "secrets: write a secret's whole ARN, arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-xxxxxx (#KEY for one key of it), and not its content."
  }
}

variable "secret_kms_keys" {
  description = "The ARNs of the KMS keys of secrets that have keys of their own."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.secret_kms_keys : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", arn))])
    error_message = "secret_kms_keys: write each key's whole ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, and no alias."
  }
}

variable "server_environment" {
  description = "The environment of the gRPC server."
  type        = map(string)
  default     = {}
}

variable "task_role_arn" {
  description = "The role of the gRPC server, for what it asks of AWS; null has none. The proxy needs none."
  type        = string
  default     = null

  validation {
    condition     = var.task_role_arn == null || can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$", var.task_role_arn))
    error_message = "task_role_arn: write a role's whole ARN, arn:aws:iam::ACCOUNT:role/NAME, or null."
  }
}

variable "vpc_id" {
  description = "The VPC."
  type        = string

  validation {
    condition     = can(regex("^vpc-[0-9a-f]+$", var.vpc_id))
    error_message = "vpc_id: write the VPC's ID, vpc-…."
  }
}

variable "subnet_ids" {
  description = "The subnets of the tasks. From there they need a way to the images, the log and the secrets: NAT, or endpoints."
  type        = set(string)

  validation {
    condition     = length(var.subnet_ids) > 0 && alltrue([for id in var.subnet_ids : can(regex("^subnet-[0-9a-f]+$", id))])
    error_message = "subnet_ids: write the ID of one subnet or more, subnet-…."
  }
}

variable "load_balancer_subnet_ids" {
  description = "The subnets of the load balancer, in two availability zones or more."
  type        = set(string)

  validation {
    condition     = length(var.load_balancer_subnet_ids) > 1 && alltrue([for id in var.load_balancer_subnet_ids : can(regex("^subnet-[0-9a-f]+$", id))])
    error_message = "load_balancer_subnet_ids: write the IDs of two subnets or more, subnet-…, each in another availability zone."
  }
}

variable "internal" {
  description = "Whether the load balancer has private addresses only."
  type        = bool
  default     = true
}

variable "allowed_cidrs" {
  description = "The IPv4 networks whose clients may connect to the load balancer."
  type        = set(string)

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for cidr in var.allowed_cidrs : can(cidrnetmask(cidr))])
    error_message = "allowed_cidrs: write one IPv4 network or more, such as 10.0.0.0/8; 0.0.0.0/0 is everybody."
  }
}

variable "certificate_arn" {
  description = "The load balancer's certificate, in ACM. A target group for gRPC needs a listener with HTTPS."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:(acm|iam):[a-z0-9-]*:[0-9]{12}:(certificate|server-certificate)/.+$", var.certificate_arn))
    error_message = "certificate_arn: write the certificate's whole ARN, arn:aws:acm:REGION:ACCOUNT:certificate/ID."
  }
}

variable "desired_count" {
  description = "How many tasks run."
  type        = number
  default     = 2

  validation {
    condition     = var.desired_count >= 1 && floor(var.desired_count) == var.desired_count
    error_message = "desired_count: write a whole number from 1."
  }
}

variable "cpu" {
  description = "The CPU units of a task, of which 1024 are one vCPU."
  type        = number
  default     = 256

  validation {
    condition     = contains(keys(local.memory), tostring(var.cpu))
    error_message = "cpu: write one of ${join(", ", sort(keys(local.memory)))}."
  }
}

variable "memory" {
  description = "The memory of a task, in MiB, of which the proxy has 64."
  type        = number
  default     = 512

  validation {
    condition     = contains(lookup(local.memory, tostring(var.cpu), []), var.memory)
    error_message = "memory: with cpu = ${var.cpu} Fargate has ${join(", ", lookup(local.memory, tostring(var.cpu), []))}."
  }
}

variable "architecture" {
  description = "The architecture of the images: arm64 or amd64."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "amd64"], var.architecture)
    error_message = "architecture: write arm64 or amd64."
  }
}

variable "log_retention_days" {
  description = "How long the log is kept, in days."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days: CloudWatch has 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365 and some numbers of years."
  }
}
