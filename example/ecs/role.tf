# Who starts the tasks: it pulls the images, writes the log and reads the secrets. Containers cannot use it
# (https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html).
resource "aws_iam_role" "execution" {
  name = "${var.name}-${data.aws_region.current.region}-execution" # a role's name is the account's, in all regions

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "execution" {
  name = "execution"
  role = aws_iam_role.execution.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.task.arn}:*"]
      }],
      length(var.repository_arns) == 0 ? [] : [
        {
          Effect   = "Allow"
          Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
          Resource = sort(var.repository_arns)
        },
        {
          Effect   = "Allow"
          Action   = ["ecr:GetAuthorizationToken"]
          Resource = ["*"] # it takes no other
        },
      ],
      length(var.secrets) == 0 ? [] : [{
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = sort(distinct([for arn in values(var.secrets) : split("#", arn)[0]]))
      }],
      length(var.secret_kms_keys) == 0 ? [] : [{
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = sort(var.secret_kms_keys)
      }],
    )
  })
}
